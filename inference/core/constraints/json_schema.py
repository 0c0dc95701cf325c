"""Which JSON schemas the grammar compiler holds to exactly; every other is refused by the name of what it cannot do.

xgrammar passes over what it does not know, so an answer would be called valid and not be. What stands below was tried
against xgrammar 0.2.8, keyword by keyword; the tests repeat it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from inference.core.constraints.regex_dialect import NotHeldTo
from inference.core.constraints.schema_strings import (
    MAX_LEAST,
    MAX_LENGTH,
    MAX_PLACES,
    checked_pattern,
    length_pattern,
    places_in,
)
from inference.core.port import UnsupportedConstraint
from inference.core.tool_calls.documents import read_json

Schema: TypeAlias = dict[str, Any] | bool

# Keywords that describe and do not constrain, or that only hold schemas for references.
_NOTES = frozenset({"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"})
_NEUTRAL = _NOTES | {"$schema", "$id", "$comment", "$defs", "definitions"}
_RANGE = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_KEYED = frozenset({"properties", "required", "additionalProperties", "patternProperties", "propertyNames"})
_BY_TYPE: Mapping[str, frozenset[str]] = {
    "object": _KEYED | {"minProperties", "maxProperties"},
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": _RANGE,
    "integer": _RANGE | {"multipleOf"},
    "boolean": frozenset(),
    "null": frozenset(),
}
_TIMES = frozenset({"date", "time", "date-time", "duration"})
_NETWORK = frozenset({"email", "ipv4", "ipv6", "hostname", "uri", "uri-reference", "uri-template"})
_FORMATS = _TIMES | _NETWORK | {"json-pointer", "relative-json-pointer", "uuid"}
# Keywords that say the whole of what a schema says: nothing else may stand beside them, save notes and a type.
_WHOLE = ("$ref", "anyOf", "oneOf", "allOf", "enum", "const")
# Pairs of which the compiler keeps only one.
_APART = (
    ("pattern", frozenset({"minLength", "maxLength", "format"})),
    ("format", frozenset({"minLength", "maxLength"})),
    ("multipleOf", _RANGE),
)
_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "null": (type(None),),
}
MAX_DEPTH = 64
MAX_MULTIPLE = 1024


def exact_schema(source: str) -> str:
    """The schema in `source`, with its objects closed where it leaves them open beyond their listed properties.

    Raises UnsupportedConstraint, naming keyword and place, for what an answer could not be held to.
    """
    try:
        schema = read_json(source)
    except ValueError as error:
        raise UnsupportedConstraint(f"the JSON schema cannot be read: {error}") from error
    return json.dumps(exact(schema))


def exact(schema: Any) -> Schema:
    """See exact_schema."""
    checked = _check(schema, "#", schema, 0)
    places = places_in(checked)
    if places > MAX_PLACES:
        raise UnsupportedConstraint(
            f"the JSON schema's patterns and lengths have {places:.0f} places when their repetitions are written out; "
            f"at most {MAX_PLACES}"
        )
    return checked


def _refuse(keyword: str, place: str, why: str) -> UnsupportedConstraint:
    return UnsupportedConstraint(f"JSON schema keyword {keyword!r} at {place}: {why}")


def _check(schema: Any, place: str, root: Any, depth: int) -> Schema:
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, dict):
        raise UnsupportedConstraint(f"the JSON schema at {place} is neither an object nor a boolean")
    if depth > MAX_DEPTH:
        raise UnsupportedConstraint(f"the JSON schema is nested deeper than {MAX_DEPTH} at {place}")
    whole = [keyword for keyword in _WHOLE if keyword in schema]
    if whole:
        _check_whole(schema, whole[0], place, root)
    else:
        _check_typed(schema, place)
    checked = dict(schema)
    for keyword, name, child in _children(schema, place):
        inner = f"{place}/{keyword}" if name is None else f"{place}/{keyword}/{name}"
        value = _check(child, inner, root, depth + 1)
        if name is None:
            checked[keyword] = value
        else:
            if checked[keyword] is schema[keyword]:
                checked[keyword] = schema[keyword].copy()
            checked[keyword][name] = value
    if "properties" in schema and not whole:
        checked.setdefault("additionalProperties", False)
    _set_patterns(checked, place)
    return checked


def _set_patterns(checked: dict[str, Any], place: str) -> None:
    """Write expressions as the compiler takes them, and lengths as expressions."""
    if checked.keys() & {"minLength", "maxLength"}:
        minimum, maximum = checked.get("minLength", 0), checked.get("maxLength")
        for keyword, length, limit in (("minLength", minimum, MAX_LEAST), ("maxLength", maximum, MAX_LENGTH)):
            if length is not None and (not isinstance(length, int) or not 0 <= length <= limit):
                raise _refuse(keyword, place, f"must be a whole number up to {limit}")
        if maximum is not None and maximum < minimum:
            raise _refuse("maxLength", place, "is less than minLength")
        pattern = length_pattern(minimum, maximum)
        if pattern is not None:
            for keyword in ("minLength", "maxLength"):
                checked.pop(keyword, None)
            checked["pattern"] = pattern
    elif isinstance(checked.get("pattern"), str):
        checked["pattern"] = _pattern("pattern", checked["pattern"], place)
    named = checked.get("patternProperties", {})
    if named:
        checked["patternProperties"] = {
            _pattern("patternProperties", pattern, place): child for pattern, child in named.items()
        }


def _pattern(keyword: str, source: str, place: str) -> str:
    try:
        return checked_pattern(source)
    except NotHeldTo as error:
        raise _refuse(keyword, place, str(error)) from error


def _children(schema: dict[str, Any], place: str) -> Iterator[tuple[str, Any, Any]]:
    """The schemas right below: the keyword they stand in, their name or number there if any, and themselves."""
    for keyword in ("items", "additionalProperties", "propertyNames"):
        if keyword in schema:
            yield keyword, None, schema[keyword]
    for keyword in ("properties", "patternProperties", "$defs", "definitions"):
        named = schema.get(keyword, {})
        if not isinstance(named, dict):
            raise _refuse(keyword, place, "is not an object")
        for name, child in named.items():
            yield keyword, name, child
    for keyword in ("prefixItems", "anyOf", "oneOf", "allOf"):
        listed = schema.get(keyword, [])
        if not isinstance(listed, list):
            raise _refuse(keyword, place, "is not a list")
        for i, child in enumerate(listed):
            yield keyword, i, child


def _check_whole(schema: dict[str, Any], keyword: str, place: str, root: Any) -> None:
    values = schema["enum"] if keyword == "enum" else [schema.get("const")]
    others = schema.keys() - _NEUTRAL - {keyword} - ({"type"} if keyword in ("enum", "const") else set())
    if others:
        raise _refuse(min(others), place, f"cannot stand beside {keyword!r}")
    if keyword == "$ref":
        _check_reference(schema["$ref"], place, root)
    elif keyword == "allOf" and len(schema["allOf"]) != 1:
        raise _refuse("allOf", place, "only a single schema can be held to; merge them")
    elif keyword == "oneOf" and not _disjoint(schema["oneOf"], root):
        raise _refuse("oneOf", place, "its branches may overlap; use anyOf, or tell them apart by type or by a const")
    elif not isinstance(values, list) or not values:
        raise _refuse("enum", place, "is not a list of values")
    elif "type" in schema:
        for value in values:
            if not any(_has_type(value, name) for name in _types(schema, place)):
                raise _refuse(keyword, place, f"{json.dumps(value)} is not of type {schema['type']!r}")


def _check_typed(schema: dict[str, Any], place: str) -> None:
    types = _types(schema, place)
    allowed = _NEUTRAL | {"type"}
    for name in types:
        allowed |= _BY_TYPE[name]
    for keyword in schema:
        if keyword not in allowed:
            known = any(keyword in keywords for keywords in _BY_TYPE.values())
            raise _refuse(keyword, place, "needs its type stated" if known and not types else "cannot be held to")
    for keyword, others in _APART:
        if keyword in schema and others & schema.keys():
            raise _refuse(keyword, place, f"cannot be held to together with {min(others & schema.keys())!r}")
    if "format" in schema and schema["format"] not in _FORMATS:
        raise _refuse("format", place, f"{schema['format']!r} cannot be held to; can be: {', '.join(sorted(_FORMATS))}")
    multiple = schema.get("multipleOf")
    if multiple is not None and not (isinstance(multiple, int) and 0 < multiple <= MAX_MULTIPLE):
        raise _refuse("multipleOf", place, f"must be a whole number from 1 to {MAX_MULTIPLE}")
    properties = schema.get("properties", {})
    missing = [name for name in schema.get("required", ()) if name not in properties]
    if missing:
        raise _refuse("required", place, f"{missing[0]!r} is not among the properties")


def _check_reference(reference: Any, place: str, root: Any) -> None:
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise _refuse("$ref", place, f"{reference!r} lies outside the schema")
    if resolve(reference, root) is None:
        raise _refuse("$ref", place, f"nothing is at {reference!r}")


def resolve(reference: str, root: Any) -> Any:
    """What a local reference of the schema `root` points at; None where nothing is."""
    found = root
    for part in reference.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or key not in found:
            return None
        found = found[key]
    return found


def _types(schema: dict[str, Any], place: str = "#") -> list[str]:
    named = schema.get("type", [])
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not all(isinstance(name, str) and name in _BY_TYPE for name in names):
        raise _refuse("type", place, f"{named!r} is not a type")
    return names


def _has_type(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _PYTHON_TYPES.get(name, ()))


def _disjoint(branches: list[Any], root: Any) -> bool:
    """Whether no value can satisfy two of the branches, as far as types, constants and tagged objects show."""
    resolved = [
        resolve(branch["$ref"], root) if isinstance(branch, dict) and isinstance(branch.get("$ref"), str) else branch
        for branch in branches
    ]
    return all(_apart(a, b) for i, a in enumerate(resolved) for b in resolved[i + 1 :])


def _apart(one: Any, other: Any) -> bool:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    first, second = _constants(one), _constants(other)
    if first is not None and second is not None:
        return not first & second
    types = [{"number" if name == "integer" else name for name in _types(schema)} for schema in (one, other)]
    if types[0] and types[1] and not types[0] & types[1]:
        return True
    if types != [{"object"}, {"object"}]:
        return False
    shared = set(one.get("required", ())) & set(other.get("required", ()))
    return any(_apart(one.get("properties", {}).get(name), other.get("properties", {}).get(name)) for name in shared)


def _constants(schema: dict[str, Any]) -> set[str] | None:
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    return None if values is None else {json.dumps(value, sort_keys=True) for value in values}
