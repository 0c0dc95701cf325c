"""Rules that repeat themselves before anything is written: the compiler's parser goes as deep as they count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .regex.tree import Alt, Cat, Chars, Node, Ref, Rep


def repeats_itself(named: Mapping[str, Node]) -> str | None:
    """A rule that begins with itself within a counted repetition; None where there is none."""
    empty = _empty(named)
    edges = {name: set(_first(body, empty, counted=False)) for name, body in named.items()}
    for name, first in edges.items():
        for used, counted in first:
            if counted and (used == name or name in _reached(used, edges)):
                return name
    return None


def _empty(named: Mapping[str, Node]) -> set[str]:
    """The rules that the empty text satisfies."""
    found: set[str] = set()
    while more := {name for name, body in named.items() if name not in found and _may_be_empty(body, found)}:
        found |= more
    return found


def _may_be_empty(node: Node, empty: set[str]) -> bool:
    match node:
        case Chars():
            return False
        case Ref():
            return node.name in empty
        case Cat():
            return all(_may_be_empty(part, empty) for part in node.parts)
        case Alt():
            return any(_may_be_empty(part, empty) for part in node.parts)
        case Rep():
            return node.low == 0 or _may_be_empty(node.node, empty)


def _first(node: Node, empty: set[str], *, counted: bool) -> Iterator[tuple[str, bool]]:
    """The rules that may come first in a tree, and whether within a counted repetition."""
    match node:
        case Ref():
            yield node.name, counted
        case Alt():
            for part in node.parts:
                yield from _first(part, empty, counted=counted)
        case Cat():
            for part in node.parts:
                yield from _first(part, empty, counted=counted)
                if not _may_be_empty(part, empty):
                    return
        case Rep():
            yield from _first(node.node, empty, counted=counted or (node.high or node.low) > 1)
        case Chars():
            pass


def _reached(name: str, edges: Mapping[str, set[tuple[str, bool]]]) -> set[str]:
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        for used, _ in edges[waiting.pop()]:
            if used not in reached:
                reached.add(used)
                waiting.append(used)
    return reached
