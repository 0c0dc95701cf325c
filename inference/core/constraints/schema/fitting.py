"""Whether a value satisfies a schema, as far as that can be told."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ..regex.automaton import Automaton, TooLarge
from ..regex.parsing import NotHeldTo, parse
from ..string_formats import FORMATS, format_tree
from .branches import ANYTHING, All, Branch
from .values import canonical, is_of

if TYPE_CHECKING:
    from .reader import Reader

# True, False, or None where it cannot be told.
Told = bool | None


def all_of(told: list[Told]) -> Told:
    """Whether all hold."""
    return False if False in told else None if None in told else True


def any_of(told: list[Told]) -> Told:
    """Whether one holds."""
    return True if True in told else None if None in told else False


def fits(value: Any, schemas: All, reader: Reader) -> Told:
    """Whether the value satisfies all the schemas."""
    if schemas == ANYTHING:
        return True
    return any_of([fits_branch(value, branch, reader) for branch in reader.branches(schemas, schemas[0][1])])


def fits_branch(value: Any, branch: Branch, reader: Reader) -> Told:
    """Whether the value satisfies the alternative."""
    if not is_of(value, branch.types):
        return False
    if branch.values is not None and canonical(value) not in {canonical(one) for one in branch.values}:
        return False
    return _of_its_type(value, branch, reader)


def _of_its_type(value: Any, branch: Branch, reader: Reader) -> Told:
    match value:
        case bool() | None:
            return True
        case int() | Decimal():
            number = Decimal(value)
            return branch.bounds.has(number) and (branch.multiple is None or _divides(branch.multiple, number))
        case str():
            return _string(value, branch)
        case list():
            return _array(value, branch, reader)
        case _:
            return _object(value, branch, reader)


def _divides(of: Decimal, number: Decimal) -> bool:
    return Fraction(number) % Fraction(of) == 0


def _string(value: str, branch: Branch) -> Told:
    low, high = branch.lengths
    if len(value) < low or (high is not None and len(value) > high):
        return False
    return all_of(
        [*(matches(pattern, value) for pattern in branch.patterns), *(_form(f, value) for f in branch.formats)]
    )


def matches(pattern: str, text: str) -> Told:
    """Whether a pattern is found in the text."""
    try:
        return Automaton(parse(pattern).within).matches(text)
    except (NotHeldTo, TooLarge):
        return None


def _form(name: str, value: str) -> Told:
    if name not in FORMATS:
        return True
    # Not every text of a format is one of the expression's.
    return True if Automaton(format_tree(name)).matches(value) else None


def _array(value: list[Any], branch: Branch, reader: Reader) -> Told:
    low, high = branch.count
    if len(value) < low or (high is not None and len(value) > high):
        return False
    if branch.unique and len({canonical(item) for item in value}) < len(value):
        return False
    each = [*branch.prefix, *[branch.items] * max(0, len(value) - len(branch.prefix))]
    return all_of([fits(item, schemas, reader) for item, schemas in zip(value, each, strict=False)])


def _object(value: dict[str, Any], branch: Branch, reader: Reader) -> Told:
    low, high = branch.members
    if len(value) < low or (high is not None and len(value) > high) or not value.keys() >= set(branch.required):
        return False
    told: list[Told] = []
    for name, inner in value.items():
        told.append(fits(name, branch.names, reader))
        schemas = member(name, branch)
        told.append(None if schemas is None else fits(inner, schemas, reader))
    return all_of(told)


def member(name: str, branch: Branch) -> All | None:
    """What the member of that name must be; None where it cannot be told."""
    found = branch.properties.get(name)
    schemas = found or ANYTHING
    listed = found is not None
    for pattern, child in branch.pattern_properties:
        match = matches(pattern, name)
        if match is None:
            return None
        if match:
            listed = True
            schemas = (*schemas, *child)
    if not listed and branch.additional is not None:
        schemas = branch.additional
    return schemas
