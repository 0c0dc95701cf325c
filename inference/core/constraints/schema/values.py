"""Values in schemas: compared as JSON Schema does, written as an answer has them, and held against a schema."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any


def canonical(value: Any) -> str:
    """The same text for values that are equal: 1 and 1.0 are, 1 and true are not."""
    match value:
        case bool() | None | str():
            return json.dumps(value)
        case int() | Decimal():
            return format(Decimal(value).normalize(), "f")
        case list():
            return f"[{','.join(map(canonical, value))}]"
        case _:
            return "{" + ",".join(f"{json.dumps(key)}:{canonical(value[key])}" for key in sorted(value)) + "}"


def written(value: Any) -> str:
    """The value as JSON, numbers to their last digit."""
    match value:
        case bool() | None | int():
            return json.dumps(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case Decimal():
            return format(value, "f") if abs(value.adjusted()) < 40 else str(value)
        case list():
            return "[" + ", ".join(map(written, value)) + "]"
        case _:
            return "{" + ", ".join(f"{written(key)}: {written(inner)}" for key, inner in value.items()) + "}"


def type_of(value: Any) -> str:
    """The type's name in JSON Schema; a whole number is an "integer" however it is written."""
    match value:
        case bool():
            return "boolean"
        case None:
            return "null"
        case str():
            return "string"
        case int() | Decimal():
            return "integer" if value == int(value) else "number"
        case list():
            return "array"
        case _:
            return "object"


def is_of(value: Any, types: frozenset[str]) -> bool:
    """Whether the value has one of the types."""
    name = type_of(value)
    return name in types or (name == "integer" and "number" in types)
