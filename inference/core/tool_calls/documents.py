"""JSON from callers: schemas, arguments of past calls, results of tools."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

# What reads a document later on does so by recursion.
DEEPEST: Final = 64
# An escape that may be half of a pair. Alone it stands for no character, and nothing can encode it.
_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]")


class NotJson(ValueError):
    """The text is no JSON at all."""


def read_json(text: str) -> Any:
    """The value in `text`, which any later part can read and write again.

    Raises NotJson, and ValueError for JSON that is nested deeper than any real document, or that holds half of a
    surrogate pair or a number out of range.
    """
    try:
        value = json.loads(text, parse_constant=_not_finite, parse_float=_finite)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from error
    except json.JSONDecodeError as error:
        raise NotJson("not JSON") from error
    _check_depth(value)
    if _HALF.search(text):
        _check_characters(value)
    return value


def read_object(text: str) -> dict[str, Any]:
    """The object in `text`. Raises ValueError as `read_json` does, and where it is something else than an object."""
    value = read_json(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _not_finite(word: str) -> float:
    raise NotJson(f"not JSON: {word} is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number out of range")
    return number


def _check_depth(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(DEEPEST + 1):
        inner: list[Any] = []
        for one in level:
            inner += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        if not inner:
            return
        level = inner
    raise ValueError(f"nested deeper than {DEEPEST} levels")


def _check_characters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("an escape of half a surrogate pair (\\ud800 to \\udfff), which is no character") from error
