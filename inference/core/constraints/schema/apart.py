"""Alternatives of which exactly one may hold: what is written under one must not be valid under another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..regex.automaton import Automaton, TooLarge
from ..regex.parsing import NotHeldTo, parse
from .branches import Branch
from .fitting import fits_branch

if TYPE_CHECKING:
    from .reader import Reader

# Of members whose schemas are compared, one within the other.
_DEPTH = 4


def separated(branch: Branch, others: list[Branch], reader: Reader, depth: int = 0) -> Branch | None:
    """The alternative, narrowed where that helps, so that nothing of it is valid under any of `others`.

    None where that cannot be shown.
    """
    for other in others:
        made = _from(branch, other, reader, depth)
        if made is None:
            return None
        branch = made
    return branch


def _from(branch: Branch, other: Branch, reader: Reader, depth: int) -> Branch | None:
    types = {name for name in branch.types if name not in other.types and not _number(name, other)}
    if types == branch.types:
        return branch
    if branch.values is not None:
        left = tuple(value for value in branch.values if fits_branch(value, other, reader) is False)
        return replace(branch, values=left) if left else None
    if types:
        return replace(branch, types=frozenset(types))
    if other.values is not None and len(other.values) < 64:
        return branch if all(fits_branch(v, branch, reader) is False for v in other.values) else None
    return _of_one_type(branch, other, reader, depth)


def _of_one_type(branch: Branch, other: Branch, reader: Reader, depth: int) -> Branch | None:
    if branch.types == other.types == {"object"}:
        return _objects(branch, other, reader, depth)
    if branch.types == other.types == {"string"}:
        return branch if _strings_apart(branch, other) else None
    return branch if branch.types <= {"number", "integer"} and _ranges_apart(branch, other) else None


def _number(name: str, other: Branch) -> bool:
    return name in ("number", "integer") and bool(other.types & {"number", "integer"})


def _ranges_apart(one: Branch, other: Branch) -> bool:
    for a, b in ((one.bounds, other.bounds), (other.bounds, one.bounds)):
        if a.high is None or b.low is None:
            continue
        if a.high < b.low or (a.high == b.low and (a.below or b.above)):
            return True
    return False


def _strings_apart(one: Branch, other: Branch) -> bool:
    for a, b in ((one, other), (other, one)):
        if a.lengths[1] is not None and a.lengths[1] < b.lengths[0]:
            return True
    try:
        trees = [[parse(pattern).within for pattern in branch.patterns] for branch in (one, other)]
        return any(not Automaton(a).overlaps(Automaton(b)) for a in trees[0] for b in trees[1])
    except (NotHeldTo, TooLarge):
        return False


def _objects(branch: Branch, other: Branch, reader: Reader, depth: int) -> Branch | None:
    if depth < _DEPTH and _member_apart(branch, other, reader, depth):
        return branch
    for name in other.required:
        listed = branch.properties.get(name)
        if name in branch.required or branch.pattern_properties:
            continue
        if listed is None and (branch.additional is None or branch.closed):
            return branch
        if listed is not None:
            # The member is optional here: without it nothing is valid there.
            left = {key: child for key, child in branch.properties.items() if key != name}
            return replace(branch, properties=left, additional=None, closed=True)
    shut = other.closed and not other.pattern_properties
    return branch if shut and any(name not in other.properties for name in branch.required) else None


def _member_apart(branch: Branch, other: Branch, reader: Reader, depth: int) -> bool:
    """Whether a member that is always there is never what the other takes under its name."""
    for name in branch.required:
        if name not in branch.properties or name not in other.properties:
            continue
        mine = reader.branches(branch.properties[name], branch.place)
        its = reader.branches(other.properties[name], other.place)
        if mine and all(separated(one, its, reader, depth + 1) == one for one in mine):
            return True
    return False
