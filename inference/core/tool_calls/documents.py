"""JSON from callers: schemas of tools, arguments of past calls."""

from __future__ import annotations

import json
from typing import Any

# What reads a document later on does so by recursion.
DEEPEST = 64


def read_object(text: str) -> dict[str, Any]:
    """The object in `text`. Raises ValueError where it is none, or nested deeper than any real one."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from error
    except ValueError as error:
        raise ValueError("not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for one in level:
            inner += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        if not inner:
            return value
        level = inner
    raise ValueError(f"nested deeper than {DEEPEST} levels")
