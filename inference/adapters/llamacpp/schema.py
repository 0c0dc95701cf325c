"""Which JSON Schemas an engine may be trusted with.

A grammar library may skip a keyword that it does not know, or drop the whole schema when it cannot compile it; the
answer would then break the promise unnoticed. So a schema is held against the keywords that are known to be kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inference.core.constraints.checking import check
from inference.core.constraints.schema.keywords import RESTRICTING
from inference.core.constraints.string_formats import FORMATS
from inference.core.port import Constraint, ConstraintKind, UnsupportedConstraint
from inference.core.tool_calls.documents import read_json

_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
# Keywords whose values are schemas: one, a list of them, or named ones.
_ONE = frozenset({"items", "additionalProperties"})
_MANY = frozenset({"anyOf", "prefixItems"})
_NAMED = frozenset({"properties", "$defs", "definitions"})
_DEEPEST = 64


def _is_type(value: Any) -> bool:
    kinds = value if isinstance(value, list) else [value]
    return bool(kinds) and all(isinstance(kind, str) and kind in _TYPES for kind in kinds)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


# What a keyword's value must be, and the words for it.
_LEAVES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (_is_type, "a JSON type or a list of them"),
    "enum": (lambda value: isinstance(value, list) and bool(value), "a list of values"),
    "const": (lambda _: True, "a value"),
    "required": (lambda value: isinstance(value, list), "a list of names"),
    **dict.fromkeys(("minItems", "maxItems", "minLength", "maxLength"), (_is_count, "a count")),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), (_is_number, "a number")),
}


class SchemaError(ValueError):
    """The schema is no JSON, no JSON Schema, or uses what is not kept; the message names the place."""


def parse_schema(source: str) -> dict[str, Any]:
    """The schema, if every keyword in it is kept. Raises SchemaError."""
    try:
        schema = read_json(source)
    except ValueError as error:
        raise SchemaError(str(error)) from error
    if not isinstance(schema, dict):
        raise SchemaError("not an object")
    _check(schema, "#", schema, 0)
    try:
        check(Constraint(ConstraintKind.JSON_SCHEMA, source))
    except UnsupportedConstraint as error:
        # Contradictions, and references that lead back to themselves: nothing could be drawn.
        raise SchemaError(str(error)) from error
    return schema


def _check(schema: Any, at: str, root: dict[str, Any], depth: int) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise SchemaError(f"{at}: neither an object nor a boolean")
    if depth > _DEEPEST:
        raise SchemaError(f"{at}: deeper than {_DEEPEST} levels")
    for keyword, value in schema.items():
        here = f"{at}/{keyword}"
        if keyword in _ONE:
            _check(value, here, root, depth + 1)
        elif keyword in _MANY:
            for i, inner in enumerate(_of(list, value, here)):
                _check(inner, f"{here}/{i}", root, depth + 1)
        elif keyword in _NAMED:
            for name, inner in _of(dict, value, here).items():
                _check(inner, f"{here}/{name}", root, depth + 1)
        else:
            _check_leaf(keyword, value, here, root)


def _check_leaf(keyword: str, value: Any, here: str, root: dict[str, Any]) -> None:
    if keyword == "$ref":
        _check_reference(value, here, root)
    elif keyword in _LEAVES:
        fits, wanted = _LEAVES[keyword]
        if not fits(value):
            raise SchemaError(f"{here}: not {wanted}")
    elif keyword in RESTRICTING and not _says_nothing(keyword, value):
        raise SchemaError(f"{here}: this keyword is not supported")


def _says_nothing(keyword: str, value: Any) -> bool:
    """Whether the value makes the keyword an annotation."""
    return (keyword == "format" and value not in FORMATS) or (keyword == "uniqueItems" and value is False)


def _check_reference(value: Any, here: str, root: dict[str, Any]) -> None:
    parts = value.split("/") if isinstance(value, str) else []
    target: Any = root
    for part in parts[1:]:
        target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
    if not parts or parts[0] != "#" or target is None:
        raise SchemaError(f"{here}: {value!r} names nothing in this schema")


def _of(kind: type, value: Any, here: str) -> Any:
    if not isinstance(value, kind):
        raise SchemaError(f"{here}: not {'a list' if kind is list else 'an object'}")
    return value
