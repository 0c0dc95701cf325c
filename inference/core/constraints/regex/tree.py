"""Trees of expressions and of grammars' rules, simplified as they are built: what can match nothing vanishes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from .characters import CharSet, union


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of a set."""

    of: CharSet


@dataclass(frozen=True, slots=True)
class Cat:
    """One after the other; without parts, the empty text."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alt:
    """Any one of them; without parts, nothing at all."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Rep:
    """`low` to `high` times; None is without end."""

    node: Node
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Ref:
    """A rule of the grammar that the tree stands in; expressions have none."""

    name: str


Node: TypeAlias = Chars | Cat | Alt | Rep | Ref
EMPTY = Cat(())
NEVER = Alt(())


def chars(of: CharSet) -> Node:
    """One character of `of`."""
    return Chars(of) if of else NEVER


def literal(text: str) -> Node:
    """The text itself."""
    return cat(Chars(((ord(character), ord(character)),)) for character in text)


def cat(parts: Iterable[Node]) -> Node:
    """The parts one after the other."""
    flat: list[Node] = []
    for part in parts:
        if part == NEVER:
            return NEVER
        flat += part.parts if isinstance(part, Cat) else [part]
    return flat[0] if len(flat) == 1 else Cat(tuple(flat))


def alt(parts: Iterable[Node]) -> Node:
    """Any one of the parts; single characters become one set."""
    flat: dict[Node, None] = {}
    sets: list[CharSet] = []
    for part in parts:
        for one in part.parts if isinstance(part, Alt) else (part,):
            if isinstance(one, Chars):
                sets.append(one.of)
            else:
                flat[one] = None
    members = [*([Chars(union(*sets))] if sets else []), *flat]
    return members[0] if len(members) == 1 else Alt(tuple(members))


def rep(node: Node, low: int, high: int | None) -> Node:
    """`node` repeated."""
    if high == 0 or node == EMPTY:
        return EMPTY
    if node == NEVER:
        return EMPTY if low == 0 else NEVER
    if (low, high) == (1, 1):
        return node
    if isinstance(node, Rep) and node.low <= 1 and node.high is None and low <= 1:
        # (x*)*, (x+)? and the like are one repetition: read in many ways, they would be slow.
        return Rep(node.node, min(node.low, low), None)
    return Rep(node, low, high)


def optional(node: Node) -> Node:
    """`node` or the empty text."""
    return rep(node, 0, 1)


def lengths(node: Node) -> tuple[int, int | None]:
    """The fewest and the most characters of what it matches; None is without end. Of NEVER (0, 0)."""
    match node:
        case Chars():
            return 1, 1
        case Cat():
            each = [lengths(part) for part in node.parts]
            return sum(low for low, _ in each), _sum([high for _, high in each])
        case Alt():
            each = [lengths(part) for part in node.parts]
            highs = [high for _, high in each]
            return min((low for low, _ in each), default=0), (
                None if None in highs else max((high for high in highs if high is not None), default=0)
            )
        case Rep():
            low, high = lengths(node.node)
            return low * node.low, None if high is None or node.high is None else high * node.high
        case Ref():
            return 0, None


def _sum(highs: list[int | None]) -> int | None:
    total = 0
    for high in highs:
        if high is None:
            return None
        total += high
    return total


def places(node: Node, single: int | None = None) -> int:
    """Sets of characters once repetitions are written out; a set's own repetitions above `single` count as one."""
    match node:
        case Chars():
            return 1
        case Cat() | Alt():
            return sum(places(part, single) for part in node.parts)
        case Rep():
            times = max(node.low, node.high or 0, 1)
            if isinstance(node.node, Chars) and single is not None and times > single:
                return max(1, node.low)
            return places(node.node, single) * times
        case Ref():
            return 0


def renamed(node: Node, name: Callable[[str], str]) -> Node:
    """The tree with its rules under other names."""
    match node:
        case Ref():
            return Ref(name(node.name))
        case Cat():
            return cat(renamed(part, name) for part in node.parts)
        case Alt():
            return alt(renamed(part, name) for part in node.parts)
        case Rep():
            return rep(renamed(node.node, name), node.low, node.high)
        case Chars():
            return node
