"""The keywords of JSON Schema: what each must be, and which an answer cannot be held to.

A keyword that stands nowhere here is an annotation, as the standard has it: `title`, `x-` and whatever a vendor adds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from inference.core.port import UnsupportedConstraint

Schema: TypeAlias = dict[str, Any] | bool

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
NUMERIC = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
# Keywords that speak of one type alone, in the order in which the types are looked through.
BY_TYPE: Mapping[str, frozenset[str]] = {
    "object": frozenset(
        {
            "properties",
            "required",
            "additionalProperties",
            "patternProperties",
            "propertyNames",
            "minProperties",
            "maxProperties",
            "unevaluatedProperties",
        }
    ),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}),
    "string": frozenset({"minLength", "maxLength", "pattern"}),
    "number": NUMERIC,
}
# Keywords that restrict, and to which an answer cannot be held.
REFUSED = frozenset(
    {
        "not",
        "if",
        "then",
        "else",
        "contains",
        "minContains",
        "maxContains",
        "dependentRequired",
        "dependentSchemas",
        "dependencies",
        "unevaluatedItems",
        "additionalItems",
        "$dynamicRef",
        "$recursiveRef",
        "extends",
        "disallow",
        "divisibleBy",
    }
)
# Of schemas, one within the other; of brackets in their text; of the text itself.
MAX_DEPTH, MAX_NESTING, MAX_CHARS = 64, 200, 200_000
MAX_STRING = 2**31 - 1
# Each character that a string must have, and each item of a list, is a place of its own.
MAX_LEAST = 128


def refuse(keyword: str, place: str, why: str) -> UnsupportedConstraint:
    """The refusal of what stands under a keyword."""
    return UnsupportedConstraint(f"JSON schema keyword {keyword!r} at {place}: {why}")


def read_json(source: str) -> Any:
    """The schema in a text. Raises UnsupportedConstraint for what is no JSON, or is too deep or too long to look at."""
    if len(source) > MAX_CHARS:
        raise UnsupportedConstraint(f"the JSON schema has {len(source)} characters; at most {MAX_CHARS}")
    if _nesting(source) > MAX_NESTING:
        raise UnsupportedConstraint(f"the JSON schema's brackets are nested deeper than {MAX_NESTING}")
    try:
        return json.loads(source, parse_float=_decimal, parse_int=_whole, parse_constant=_refused_constant)
    except ValueError as error:
        raise UnsupportedConstraint(f"the JSON schema cannot be read: {error}") from error


def decoded(value: Any) -> Any:
    """The same as `read_json` for a schema that was read by other means."""
    return read_json(json.dumps(value))


def _nesting(source: str) -> int:
    """How deep brackets nest, outside of strings."""
    depth, deepest, quoted, escaped = 0, 0, False, False
    for character in source:
        if quoted:
            escaped, quoted = character == "\\" and not escaped, character != '"' or escaped
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _decimal(text: str) -> Decimal:
    """Numbers as they are written: a double would round a bound."""
    value = Decimal(text)
    if not value.is_finite() or abs(value.adjusted()) > 400 or len(text) > 400:
        raise ValueError("a number is beyond what can be read")
    return value


def _whole(text: str) -> int:
    if len(text) > 400:
        raise ValueError("a number is beyond what can be read")
    return int(text)


def _refused_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def is_number(value: Any) -> bool:
    """Whether it is a number of JSON."""
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return is_number(value) and value == int(value) and 0 <= value <= MAX_STRING


def _is_types(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return isinstance(names, list) and bool(names) and all(isinstance(name, str) and name in TYPES for name in names)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict | bool)


def _is_schemas(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict)


_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
# What a keyword's value must be, and the words for it.
_SHAPES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "type": (_is_types, f"must be one of {', '.join(TYPES)}, or a list of them that is not empty"),
    "enum": (lambda value: isinstance(value, list) and bool(value), "is not a list of values"),
    "required": (_is_names, "is not a list of names"),
    "pattern": (lambda value: isinstance(value, str), "is not a string"),
    "format": (lambda value: isinstance(value, str), "is not a string"),
    "$ref": (lambda value: isinstance(value, str), "is not a string"),
    "uniqueItems": (lambda value: isinstance(value, bool), "is neither true nor false"),
    "minimum": (is_number, "is not a number"),
    "maximum": (is_number, "is not a number"),
    "exclusiveMinimum": (lambda value: is_number(value) or isinstance(value, bool), "is not a number"),
    "exclusiveMaximum": (lambda value: is_number(value) or isinstance(value, bool), "is not a number"),
    "multipleOf": (is_number, "is not a number"),
    **dict.fromkeys(_COUNTS, (_is_count, f"must be a whole number up to {MAX_STRING}")),
    **dict.fromkeys(("properties", "patternProperties"), (_is_named, "is not an object")),
    **dict.fromkeys(("prefixItems", "anyOf", "oneOf", "allOf"), (_is_schemas, "is not a list of schemas")),
    **dict.fromkeys(
        ("items", "additionalProperties", "propertyNames", "unevaluatedProperties"),
        (_is_schema, "is neither an object nor a boolean"),
    ),
}


# Every keyword that an answer has to heed; others are annotations.
RESTRICTING = REFUSED | _SHAPES.keys()


def check_shapes(schema: dict[str, Any], place: str) -> None:
    """Raise UnsupportedConstraint for keywords that an answer cannot be held to, or whose values are none."""
    for keyword, value in schema.items():
        if keyword in REFUSED:
            raise refuse(keyword, place, "cannot be held to")
        shape = _SHAPES.get(keyword)
        if shape is not None and not shape[0](value):
            raise refuse(keyword, place, shape[1])
    if schema.get("unevaluatedProperties", False) not in (False, True):
        raise refuse("unevaluatedProperties", place, "only true and false can be held to")


def pointer(place: str, *parts: object) -> str:
    """A place further down, as a JSON pointer."""
    return "/".join([place, *(str(part).replace("~", "~0").replace("/", "~1")[:80] for part in parts)])


def resolve(reference: str, root: Any) -> Any:
    """What a local reference of the schema `root` points at; None where nothing is."""
    if reference == "#":
        return root
    found = root if reference.startswith("#/") else None
    for part in reference.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdigit() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, dict) and key in found:
            found = found[key]
        else:
            return None
    return found
