"""Grammars as rules over the trees of `regex`: what of them can come to an end, and how the compiler reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .left_recursion import repeats_itself
from .regex.characters import CharSet
from .regex.json_text import written
from .regex.parsing import NotHeldTo
from .regex.tree import NEVER, Alt, Cat, Chars, Node, Ref, Rep, alt, cat, rep

# Repetitions of one class beyond this are rules of their own, written out or counted by the matcher.
COUNTED_FROM = 4
# How far such repetitions are written out: as far as the cost allows, because the masks of counted ones take longer.
WRITTEN_OUT = (128, 16, COUNTED_FROM)
# Of an expression, when all other repetitions are written out, and of one such repetition.
MAX_PLACES, MAX_COUNT = 256, 128
_ASCII = 0x7F
# What follows a chain is repeated in each of its rules up to so many characters.
_SHORT = 24
_IN_CLASS = {ord(character): "\\" + character for character in "]\\-^["}


@dataclass(frozen=True, slots=True)
class FreeText:
    """Any text in which `trigger` does not stand, but where `calls`, a rule's name, goes on behind it to the end."""

    trigger: str
    calls: str = ""


@dataclass(slots=True)
class Rules:
    """Rules by name, and which of them is the whole answer, unless that is free text."""

    named: dict[str, Node] = field(default_factory=dict)
    root: str = "root"
    free: FreeText | None = None

    def pruned(self) -> Rules:
        """Without what can never come to an end, and without rules that nothing leads to. Empty where all is that."""
        ending = _ending(self.named)
        kept = {name: _without(body, ending) for name, body in self.named.items() if name in ending}
        kept = {name: _direct(body, kept) for name, body in kept.items()}
        reached: dict[str, Node] = {}
        first = self.root if self.free is None else self.free.calls
        waiting = [first] if first in kept else []
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached[name] = kept[name]
                waiting += references(kept[name])
        return Rules({name: kept[name] for name in kept if name in reached}, self.root, self.free)

    def ending(self) -> set[str]:
        """The rules that some text satisfies."""
        return _ending(self.named)

    def written(self, written_out: int = WRITTEN_OUT[0]) -> str:
        """In the compiler's notation; longer repetitions of one class are counted by the matcher."""
        return _Writer(written_out).all(self)


def checked(rules: Rules, writable: CharSet) -> Rules:
    """The rules with what can be written alone. Raises NotHeldTo where that is nothing, or one of them has no end."""
    if rules.root not in rules.pruned().named:
        raise NotHeldTo("nothing satisfies it: no text comes to an end under it")
    left = Rules({name: written(body, writable) for name, body in rules.named.items()}, rules.root).pruned()
    if left.root not in left.named:
        raise NotHeldTo("needs a character that no token of this model can write")
    repeated = repeats_itself(left.named)
    if repeated is not None:
        raise NotHeldTo(f"rule {repeated[:80]!r} repeats itself a counted number of times before anything is written")
    return left


def references(node: Node) -> Iterator[str]:
    """The rules that a tree uses."""
    match node:
        case Ref():
            yield node.name
        case Cat() | Alt():
            for part in node.parts:
                yield from references(part)
        case Rep():
            yield from references(node.node)
        case Chars():
            pass


def _ending(named: Mapping[str, Node]) -> set[str]:
    """The rules that some text satisfies; each is looked at again only when one that it uses turned out to be."""
    users: dict[str, list[str]] = {}
    for name, body in named.items():
        for used in set(references(body)):
            users.setdefault(used, []).append(name)
    ending: set[str] = set()
    waiting = list(named)
    while waiting:
        name = waiting.pop()
        if name not in ending and _ends(named[name], ending):
            ending.add(name)
            waiting += users.get(name, ())
    return ending


def _ends(node: Node, ending: set[str]) -> bool:
    match node:
        case Chars():
            return True
        case Ref():
            return node.name in ending
        case Cat():
            return all(_ends(part, ending) for part in node.parts)
        case Alt():
            return any(_ends(part, ending) for part in node.parts)
        case Rep():
            return node.low == 0 or _ends(node.node, ending)


def _without(node: Node, ending: set[str]) -> Node:
    match node:
        case Ref():
            return node if node.name in ending else NEVER
        case Cat():
            return cat(_without(part, ending) for part in node.parts)
        case Alt():
            return alt(_without(part, ending) for part in node.parts)
        case Rep():
            return rep(_without(node.node, ending), node.low, node.high)
        case Chars():
            return node


def _direct(node: Node, named: Mapping[str, Node]) -> Node:
    """The tree with rules that are nothing but another one replaced by that one."""
    match node:
        case Ref():
            seen = {node.name}
            while isinstance(body := named[node.name], Ref) and body.name not in seen:
                node = body
                seen.add(node.name)
            return node
        case Cat():
            return cat(_direct(part, named) for part in node.parts)
        case Alt():
            return alt(_direct(part, named) for part in node.parts)
        case Rep():
            return rep(_direct(node.node, named), node.low, node.high)
        case Chars():
            return node


class _Writer:
    def __init__(self, written_out: int) -> None:
        self._written_out = written_out
        self._lines: list[str] = []
        self._chains = 0
        self._counted: dict[tuple[CharSet, int, int], str] = {}

    def all(self, rules: Rules) -> str:
        if rules.free is not None:
            self._lines.append(f"{rules.root} ::= {_dispatched(rules.free)}")
        for name in sorted(rules.named, key=lambda name: name != rules.root):
            self._lines.append(f"{name} ::= {self._expression(rules.named[name])}")
        return "\n".join(self._lines) + "\n"

    def _expression(self, node: Node) -> str:
        """As alternatives at the top of a rule."""
        if isinstance(node, Alt) and node.parts:
            return " | ".join(self._row(part) for part in node.parts)
        return self._row(node)

    def _row(self, node: Node) -> str:
        if not isinstance(node, Cat):
            return self._item(node)
        parts: list[str] = []
        text = ""
        for i, part in enumerate(node.parts):
            if self._is_chain(part):
                parts += [_quoted(text)] if text else []
                return " ".join([*parts, self._chain(part, node.parts[i + 1 :])])
            single = _single(part)
            if single is None:
                parts += [_quoted(text)] if text else []
                parts.append(self._item(part))
                text = ""
            else:
                text += single
        return " ".join([*parts, *([_quoted(text)] if text or not parts else [])])

    def _item(self, node: Node) -> str:
        match node:
            case Chars():
                single = _single(node)
                return _class(node.of) if single is None else _quoted(single)
            case Ref():
                return node.name
            case Cat() if not node.parts:
                return '""'
            case Cat() | Alt():
                return f"({self._expression(node)})"
            case Rep():
                return self._repeated(node)

    def _repeated(self, node: Rep) -> str:
        if isinstance(node.node, Chars) and (node.high or 0) > COUNTED_FROM:
            return self._counted_rule(node.node.of, node.low, node.high or 0)
        inner = self._item(node.node)
        if isinstance(node.node, Rep):
            inner = f"({inner})"
        match node.low, node.high:
            case 0, None:
                return f"{inner}*"
            case 1, None:
                return f"{inner}+"
            case 0, 1:
                return f"{inner}?"
            case low, None:
                return f"{inner}{{{low},}}"
            case low, high:
                return f"{inner}{{{low},{high}}}"

    def _is_chain(self, node: Node) -> bool:
        """Whether it is a repetition of one class, written out, that the compiler's automata are not exact for."""
        if not isinstance(node, Rep) or not isinstance(node.node, Chars):
            return False
        return COUNTED_FROM < (node.high or 0) <= self._written_out and node.node.of[-1][1] > _ASCII

    def _chain(self, node: Node, rest: tuple[Node, ...]) -> str:
        """A rule for each time that the class comes, with what follows in it: what goes beyond a rule is slow."""
        assert isinstance(node, Rep)
        assert isinstance(node.node, Chars)
        self._chains += 1
        name, high, of = f"chain_{self._chains}", node.high or 0, _class(node.node.of)
        after = self._row(cat(rest))
        if len(after) > _SHORT:
            self._lines.append(f"{name}_rest ::= {after}")
            after = f"{name}_rest"
        for i in range(node.low, high):
            self._lines.append(f"{name}_{i} ::= {after} | {of} {name}_{i + 1}")
        self._lines.append(f"{name}_{high} ::= {after}")
        return " ".join([*[of] * node.low, f"{name}_{node.low}"])

    def _counted_rule(self, of: CharSet, low: int, high: int) -> str:
        key = (of, low, high)
        if key not in self._counted:
            name = self._counted[key] = f"counted_{len(self._counted)}"
            if high <= self._written_out and of[-1][1] <= _ASCII:
                self._lines.append(f"{name} ::= Regex({json.dumps(_regex(of, low, high))})")
            else:
                body = " ".join([_class(of)] * low + [f"{_class(of)}*"])
                self._lines.append(f"{name}[max_chars={high}] ::= {body}")
        return self._counted[key]


def _regex(of: CharSet, low: int, high: int) -> str:
    """A repetition of a class of ASCII as an expression."""

    def one(code: int) -> str:
        plain = chr(code).isalnum() or chr(code) == " "
        return chr(code) if plain else f"\\x{code:02x}"

    members = "".join(one(a) if a == b else f"{one(a)}-{one(b)}" for a, b in of)
    return f"[{members}]{{{low},{high}}}"


def _dispatched(free: FreeText) -> str:
    if not free.calls:
        return f"TagDispatch(loop_after_dispatch=false, excludes=({_quoted(free.trigger)}))"
    return f"TagDispatch(({_quoted(free.trigger)}, {free.calls}), loop_after_dispatch=false, excludes=())"


def _single(node: Node) -> str | None:
    if isinstance(node, Chars) and len(node.of) == 1 and node.of[0][0] == node.of[0][1]:
        return chr(node.of[0][0])
    return None


def _quoted(text: str) -> str:
    return '"' + "".join(_in_literal(character) for character in text) + '"'


def _in_literal(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if " " <= character < "\x7f" or character > "\xa0" else _code(ord(character))


def _code(code: int) -> str:
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _class(of: CharSet) -> str:
    def one(code: int) -> str:
        return _IN_CLASS.get(code) or (chr(code) if 0x20 <= code < 0x7F else _code(code))

    return "[" + "".join(one(low) if low == high else f"{one(low)}-{one(high)}" for low, high in of) + "]"
