"""Expressions about a string, turned into expressions about how JSON writes it."""

from __future__ import annotations

from . import characters
from .characters import CharSet
from .tree import NEVER, Alt, Cat, Chars, Node, Ref, Rep, alt, cat, chars, literal, rep

# Characters that JSON writes with a backslash and a letter; all other control characters need a code, which nobody
# means by a pattern: they are left out.
SHORT = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
RAW: CharSet = characters.minus(characters.complement(((0, 0x1F),)), characters.of('"\\'))


def as_json(node: Node, writable: CharSet, counted: int) -> Node:
    """What the string looks like between its quotes; NEVER where it has characters that cannot be written.

    Where one class is repeated more often than `counted`, it is held to the characters that JSON does not escape, so
    that it stays one class.
    """
    match node:
        case Chars():
            return _one(node.of, writable)
        case Cat():
            return cat(as_json(part, writable, counted) for part in node.parts)
        case Alt():
            return alt(as_json(part, writable, counted) for part in node.parts)
        case Rep():
            inner = as_json(node.node, writable, counted)
            if isinstance(node.node, Chars) and (node.high or 0) > counted:
                raw = _raw(node.node.of, writable)
                inner = raw if raw != NEVER else inner
            return rep(inner, node.low, node.high)
        case Ref():
            return node


def written(node: Node, writable: CharSet) -> Node:
    """What is left of the tree with those characters alone."""
    match node:
        case Chars():
            return chars(characters.intersection(node.of, writable))
        case Cat():
            return cat(written(part, writable) for part in node.parts)
        case Alt():
            return alt(written(part, writable) for part in node.parts)
        case Rep():
            return rep(written(node.node, writable), node.low, node.high)
        case Ref():
            return node


def _raw(of: CharSet, writable: CharSet) -> Node:
    return chars(characters.intersection(characters.intersection(of, RAW), writable))


def _one(of: CharSet, writable: CharSet) -> Node:
    raw = _raw(of, writable)
    letters = [chars(characters.of(letter)) for character, letter in SHORT.items() if characters.has(of, character)]
    if not letters:
        return raw
    return alt([*([raw] if raw != NEVER else []), cat([literal("\\"), alt(letters)])])
