"""Alternatives of a schema: each says in one place all that its values must be.

The schemas of members and items stay as they are, several of them where several hold at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, TypeAlias

from ..numbers import Bounds
from .keywords import BY_TYPE, TYPES, Schema, pointer, refuse
from .values import canonical

# Schemas that hold all at once, each with its place.
All: TypeAlias = tuple[tuple[Schema, str], ...]
ANYTHING: All = ()
# Every whole number is a number.
ANY_TYPE = frozenset(TYPES) - {"integer"}
# Alternatives of one schema.
MAX_BRANCHES = 256


@dataclass(frozen=True, slots=True)
class Branch:
    """What a value of one alternative must be. `types` holds "integer" where whole numbers alone will do."""

    place: str
    types: frozenset[str] = ANY_TYPE
    # None: any; else the values that are left to choose from.
    values: tuple[Any, ...] | None = None
    bounds: Bounds = field(default_factory=Bounds)
    multiple: Decimal | None = None
    lengths: tuple[int, int | None] = (0, None)
    patterns: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    properties: dict[str, All] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    pattern_properties: tuple[tuple[str, All], ...] = ()
    # None: not said; members that are not listed are left out then.
    additional: All | None = None
    closed: bool = False
    # Whether members are listed at all: then no others are written unless they are spoken of.
    listed: bool = False
    names: All = ANYTHING
    members: tuple[int, int | None] = (0, None)
    prefix: tuple[All, ...] = ()
    items: All = ANYTHING
    count: tuple[int, int | None] = (0, None)
    unique: bool = False


def plain(schema: dict[str, Any], place: str) -> Branch:
    """What a schema itself says, beside its references and combinations."""
    minimum, above = _bound(schema, "minimum", "exclusiveMinimum", max)
    maximum, below = _bound(schema, "maximum", "exclusiveMaximum", min)
    values = schema.get("enum")
    if "const" in schema:
        values = [schema["const"]] if values is None or schema["const"] in values else []
    multiple = schema.get("multipleOf")
    if multiple is not None and multiple <= 0:
        raise refuse("multipleOf", place, "must be above 0")
    additional = schema.get("additionalProperties")
    named = schema.get("properties", {})
    return Branch(
        place,
        types=_types(schema),
        values=None if values is None else tuple(values),
        bounds=Bounds(minimum, maximum, above, below),
        multiple=None if multiple is None else Decimal(multiple),
        lengths=_counts(schema, "minLength", "maxLength"),
        patterns=(schema["pattern"],) if "pattern" in schema else (),
        formats=(schema["format"],) if "format" in schema else (),
        properties={name: ((child, pointer(place, "properties", name)),) for name, child in named.items()},
        required=tuple(dict.fromkeys(schema.get("required", ()))),
        pattern_properties=tuple(
            (pattern, ((child, pointer(place, "patternProperties", pattern)),))
            for pattern, child in schema.get("patternProperties", {}).items()
        ),
        additional=None if additional is None else ((additional, pointer(place, "additionalProperties")),),
        closed=additional is False or schema.get("unevaluatedProperties") is False,
        listed="properties" in schema,
        names=((schema["propertyNames"], pointer(place, "propertyNames")),) if "propertyNames" in schema else ANYTHING,
        members=_counts(schema, "minProperties", "maxProperties"),
        prefix=tuple(
            ((child, pointer(place, "prefixItems", i)),) for i, child in enumerate(schema.get("prefixItems", ()))
        ),
        items=((schema["items"], pointer(place, "items")),) if "items" in schema else ANYTHING,
        count=_counts(schema, "minItems", "maxItems"),
        unique=schema.get("uniqueItems", False),
    )


def _types(schema: dict[str, Any]) -> frozenset[str]:
    """The types that are named; else those that the keywords speak of, since no others are restricted by them."""
    named = schema.get("type")
    if named is not None:
        types = {named} if isinstance(named, str) else set(named)
        return frozenset(types - {"integer"} if "number" in types else types)
    spoken = {name for name, keywords in BY_TYPE.items() if keywords & schema.keys()}
    whole = "enum" in schema or "const" in schema or not spoken
    return ANY_TYPE if whole else frozenset(spoken)


def _bound(schema: dict[str, Any], inclusive: str, exclusive: str, tighter: Any) -> tuple[Decimal | None, bool]:
    bound, other = schema.get(inclusive), schema.get(exclusive)
    if isinstance(other, bool) or other is None:
        # As OpenAPI 3.0 and the fourth draft have it.
        return None if bound is None else Decimal(bound), bool(other) and bound is not None
    if bound is None or tighter(Decimal(bound), Decimal(other)) == other:
        return Decimal(other), True
    return Decimal(bound), False


def _counts(schema: dict[str, Any], low: str, high: str) -> tuple[int, int | None]:
    return int(schema.get(low, 0)), int(schema[high]) if high in schema else None


def product(some: list[Branch], others: list[Branch], place: str) -> list[Branch]:
    """What satisfies one of each, where anything does. Raises UnsupportedConstraint where that is too many."""
    if len(some) * len(others) > MAX_BRANCHES:
        raise refuse("anyOf", place, f"comes to more than {MAX_BRANCHES} alternatives")
    return [made for one in some for other in others if (made := merged(one, other)) is not None]


def merged(one: Branch, other: Branch) -> Branch | None:
    """What both say; None where nothing can satisfy both."""
    types = _both_types(one.types, other.types)
    values = _both_values(one.values, other.values)
    if not types or values == ():
        return None
    if one.multiple is not None and other.multiple is not None and one.multiple != other.multiple:
        raise refuse("multipleOf", one.place, "is said twice and differently")
    names = dict.fromkeys([*one.properties, *other.properties])
    return replace(
        one,
        place=other.place if one.place.count("/") <= other.place.count("/") and _is_open(one) else one.place,
        types=types,
        values=values,
        bounds=_both_bounds(one.bounds, other.bounds),
        multiple=one.multiple if one.multiple is not None else other.multiple,
        lengths=_both_counts(one.lengths, other.lengths),
        patterns=tuple(dict.fromkeys(one.patterns + other.patterns)),
        formats=tuple(dict.fromkeys(one.formats + other.formats)),
        properties={name: _member(one, other, name) for name in names},
        required=tuple(dict.fromkeys(one.required + other.required)),
        pattern_properties=_both_patterns(one, other),
        additional=_both_additional(one, other),
        closed=one.closed or other.closed,
        listed=one.listed or other.listed,
        names=joined(one.names, other.names),
        members=_both_counts(one.members, other.members),
        prefix=_both_prefixes(one, other),
        items=joined(one.items, other.items),
        count=_both_counts(one.count, other.count),
        unique=one.unique or other.unique,
    )


def _is_open(branch: Branch) -> bool:
    """Whether it says nothing: its place is then of no interest."""
    return replace(branch, place="") == Branch("")


def joined(one: All, other: All) -> All:
    """The schemas of both, each once."""
    return (*one, *(pair for pair in other if pair not in one))


def _both_types(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    both = one & other
    for some, others in ((one, other), (other, one)):
        if "integer" in some and "number" in others:
            both |= {"integer"}
    return both


def _both_values(one: tuple[Any, ...] | None, other: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    if one is None or other is None:
        return other if one is None else one
    allowed = {canonical(value) for value in other}
    return tuple(value for value in one if canonical(value) in allowed)


def _both_bounds(one: Bounds, other: Bounds) -> Bounds:
    low, above = _tighter(one.low, one.above, other.low, other.above, sign=1)
    high, below = _tighter(one.high, one.below, other.high, other.below, sign=-1)
    return Bounds(low, high, above, below)


def _tighter(
    one: Decimal | None, without: bool, other: Decimal | None, without_other: bool, *, sign: int
) -> tuple[Decimal | None, bool]:
    if one is None or other is None:
        return (other, without_other) if one is None else (one, without)
    if one == other:
        return one, without or without_other
    return (one, without) if sign * one > sign * other else (other, without_other)


def _both_counts(one: tuple[int, int | None], other: tuple[int, int | None]) -> tuple[int, int | None]:
    highs = [high for high in (one[1], other[1]) if high is not None]
    return max(one[0], other[0]), min(highs, default=None)


def _member(one: Branch, other: Branch, name: str) -> All:
    """What a member that one of them lists must be: where the other does not list it, it says so otherwise."""
    parts = [branch.properties[name] if name in branch.properties else _unlisted(branch) for branch in (one, other)]
    return joined(*parts)


def _unlisted(branch: Branch) -> All:
    # Patterns are looked at when the whole object is written.
    return branch.additional if branch.additional is not None and not branch.pattern_properties else ANYTHING


def _both_additional(one: Branch, other: Branch) -> All | None:
    if one.additional is None or other.additional is None:
        # Said by one alone, it is still what any other member must be.
        return other.additional if one.additional is None else one.additional
    return joined(one.additional, other.additional)


def _both_patterns(one: Branch, other: Branch) -> tuple[tuple[str, All], ...]:
    for branch, beside in ((one, other), (other, one)):
        if branch.pattern_properties and (
            beside.additional is not None or (branch.additional is not None and beside.properties)
        ):
            raise refuse("patternProperties", branch.place, "cannot be combined with the members of another schema")
    return one.pattern_properties + other.pattern_properties


def _both_prefixes(one: Branch, other: Branch) -> tuple[All, ...]:
    if one.prefix and other.prefix and one.prefix != other.prefix:
        raise refuse("prefixItems", one.place, "is said twice and differently")
    if (one.prefix and other.items) or (other.prefix and one.items):
        raise refuse("items", one.place, "cannot be combined with another schema's prefixItems")
    return one.prefix or other.prefix
