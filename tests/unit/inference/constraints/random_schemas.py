"""Random schemas of everything that may be accepted, and some that may not."""

from __future__ import annotations

from random import Random
from typing import Any

NAMES = ["id", "name", "count", "größe", "a b", 'q"', "x-a", "x-b", "", "tags", "back\\slash", "日本", "né"]
PATTERNS = [
    *(
        "^[a-z]{2,5}$",
        "^x-",
        r"\d+",
        r"^[^\"]*$",
        r'^say "[a-z]"$',
        r"a\\b",
        r"^\S+@\S+$",
        r"\n",
        r"^\t?[é-ü]$",
        "a|^b$",
    ),
    *(r"^[^\s]+$", r".*", r"^.{1,300}$", r"^[\w-]{1,64}$", "^😀?x", r"^(?:[A-Z]{3}-)+\d$", r"[^a-z]", r"^[^\\]$"),
    *(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", r"^$", r"\W", r"\S", r"^\u0041\x42\/$"),
    *(r"^#([0-9a-fA-F]{3}){1,2}$", r"^/([^/~]|~[01])*$", r"[\x00-\x1f]", r"^[\]\[^-]+$", "^(a|b|)c?$", "日本?"),
]
FORMATS = ["date", "time", "date-time", "duration", "email", "ipv4", "ipv6", "uri", "uuid", "hostname", "int32", "x-y"]
NUMBERS = [0, 1, -1, 5, 10, 100, 1e-9, 1e-8, 0.5, -2.5, 2**63, 2**64 + 1, -(2**70), 1e20, 3.25, 99, 1000, 1.000001]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -3, 2**63, 2**63 + 1, 1.5, 1e-7, "", "a", 'q"', "back\\", "line\nend", "é😀", "\x07"),
    *([], [1, "a"], {}, {"a": 1}, {"k": [None, {"x": "y"}]}, 1e300, -0.0),
]


def some_schema(rng: Random, depth: int = 0) -> Any:
    """A schema, at most three levels deep."""
    kinds = ["string", "number", "integer", "value", "typed", "any"]
    if depth < 3:
        kinds += ["object", "object", "object", "array", "anyOf", "oneOf", "allOf", "ref", "map"]
    if depth == 0:
        kinds += ["object"] * 6
    schema = _OF[rng.choice(kinds)](rng, depth)
    if isinstance(schema, dict):
        if rng.random() < 0.2:
            schema |= rng.choice([{"title": "T"}, {"x-z": 1}, {"description": "d"}, {"default": 3}, {"example": {}}])
        if depth == 0:
            schema["$defs"] = {name: some_schema(rng, 1) for name in ("A", "B")}
    return schema


def _string(rng: Random, depth: int) -> Any:
    schema: dict[str, Any] = {"type": "string"} if rng.random() < 0.9 else {}
    if rng.random() < 0.4:
        schema["minLength"] = rng.randint(0, 6)
    if rng.random() < 0.5:
        schema["maxLength"] = rng.choice([0, 1, 2, 5, 12, 40, 300])
    if rng.random() < 0.5:
        schema["pattern"] = rng.choice(PATTERNS)
    elif rng.random() < 0.4:
        schema["format"] = rng.choice(FORMATS)
    return schema


def _number(rng: Random, depth: int, kind: str = "number") -> Any:
    schema: dict[str, Any] = {"type": kind}
    for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        if rng.random() < 0.3:
            schema[keyword] = rng.choice(NUMBERS)
    if rng.random() < 0.2:
        schema["multipleOf"] = rng.choice([1, 2, 3, 5, 7, 10, 12, 100, 0.5])
    return schema


def _value(rng: Random, depth: int) -> Any:
    schema = {"const": rng.choice(VALUES)} if rng.random() < 0.4 else {"enum": rng.sample(VALUES, rng.randint(1, 4))}
    if rng.random() < 0.3:
        schema |= _OF[rng.choice(["string", "number", "typed"])](rng, 3)
    return schema


def _typed(rng: Random, depth: int) -> Any:
    names = ["object", "array", "string", "number", "integer", "boolean", "null"]
    return {"type": rng.sample(names, rng.randint(1, 3)) if rng.random() < 0.6 else rng.choice(names)}


def _object(rng: Random, depth: int) -> Any:
    names = rng.sample(NAMES, rng.randint(0, 4))
    schema: dict[str, Any] = {"type": "object"} if rng.random() < 0.9 else {}
    schema["properties"] = {name: some_schema(rng, depth + 1) for name in names}
    schema["required"] = [name for name in names if rng.random() < 0.5]
    if rng.random() < 0.1:
        schema["required"].append("other")
    if rng.random() < 0.4:
        schema["additionalProperties"] = rng.choice([False, False, True, some_schema(rng, depth + 1)])
    if rng.random() < 0.15:
        schema["minProperties"] = rng.randint(0, 3)
    if rng.random() < 0.15:
        schema["maxProperties"] = rng.randint(0, 4)
    if rng.random() < 0.15:
        schema["patternProperties"] = _patterned(rng, depth)
    if rng.random() < 0.1:
        schema["propertyNames"] = _string(rng, depth)
    return schema


def _map(rng: Random, depth: int) -> Any:
    schema: dict[str, Any] = {"type": "object"}
    if rng.random() < 0.5:
        schema["additionalProperties"] = some_schema(rng, depth + 1)
    if rng.random() < 0.3:
        schema["patternProperties"] = _patterned(rng, depth)
    if rng.random() < 0.3:
        schema["propertyNames"] = _string(rng, depth)
    if rng.random() < 0.3:
        schema["minProperties"] = rng.randint(0, 2)
    if rng.random() < 0.3:
        schema["maxProperties"] = rng.randint(0, 4)
    return schema


def _patterned(rng: Random, depth: int) -> Any:
    return {pattern: some_schema(rng, depth + 1) for pattern in rng.sample(PATTERNS, rng.randint(1, 2))}


def _array(rng: Random, depth: int) -> Any:
    schema: dict[str, Any] = {"type": "array"} if rng.random() < 0.9 else {}
    if rng.random() < 0.9:
        schema["items"] = some_schema(rng, depth + 1)
    if rng.random() < 0.2:
        schema["prefixItems"] = [some_schema(rng, depth + 1) for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.4:
        schema["minItems"] = rng.randint(0, 3)
    if rng.random() < 0.4:
        schema["maxItems"] = rng.randint(0, 4)
    if rng.random() < 0.1:
        schema["uniqueItems"] = rng.random() < 0.5
    return schema


def _combined(keyword: str) -> Any:
    def made(rng: Random, depth: int) -> Any:
        schema: dict[str, Any] = {keyword: [some_schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]}
        if rng.random() < 0.3:
            schema |= _OF[rng.choice(["string", "object", "typed"])](rng, 3)
        return schema

    return made


def _reference(rng: Random, depth: int) -> Any:
    schema: dict[str, Any] = {"$ref": rng.choice(["#", "#/$defs/A", "#/$defs/B"])}
    return schema | ({"description": "d"} if rng.random() < 0.5 else _typed(rng, depth) if rng.random() < 0.2 else {})


_OF: dict[str, Any] = {
    "string": _string,
    "number": _number,
    "integer": lambda rng, depth: _number(rng, depth, "integer"),
    "value": _value,
    "typed": _typed,
    "any": lambda rng, depth: rng.choice([{}, True]),
    "object": _object,
    "map": _map,
    "array": _array,
    "anyOf": _combined("anyOf"),
    "oneOf": _combined("oneOf"),
    "allOf": _combined("allOf"),
    "ref": _reference,
}
