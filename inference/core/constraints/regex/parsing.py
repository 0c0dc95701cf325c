r"""Reads expressions in ECMA 262's dialect, as JSON Schema names it; Python's spellings of the same are understood.

What cannot be held to is refused by name. Sets that dialects disagree on are read as the smaller of what they say, so
that whatever is written under them matches in all: `.` is no line end of any kind, \w and \d are ASCII, and neither
\s nor \S has white space beyond ASCII's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import characters
from .characters import ALL, CharSet
from .tree import Node, alt, cat, chars, lengths, rep

# Of groups, one within the other.
MAX_NESTING = 48
# Of an expression, in characters; and of one count in it.
MAX_CHARS = 8192
MAX_COUNT = 100_000
# What groups with anchors in them may become.
MAX_ALTERNATIVES = 64
_COUNT = re.compile(r"\{(\d*)(,?)(\d*)\}")
_GROUP = re.compile(r"\(\?(?::|P?<[A-Za-z_$]\w*>)")
_LOOKING = {"(?=": "looking ahead", "(?!": "looking ahead", "(?<=": "looking behind", "(?<!": "looking behind"}
_CODE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\})")
_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}


class NotHeldTo(ValueError):
    """The text has what an answer cannot be held to; the message names it, and shows no more of it."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """The beginning or the end of the text, while an expression is being read."""

    end: bool


# An alternative as it is read: anchors have not been settled.
_Item = Node | Anchor


@dataclass(frozen=True, slots=True)
class Expression:
    """`whole` matches from the beginning of a text to its end; `within` is what a search finds a match in.

    `meant` lies between: a pattern without any anchor is read as one of the whole text, as most authors of schemas mean
    it; one that is tied to one end is open at the other, and so is one of a single character.
    """

    whole: Node
    within: Node
    meant: Node


def parse(source: str) -> Expression:
    """The expression. Raises NotHeldTo."""
    if len(source) > MAX_CHARS:
        raise NotHeldTo(f"has {len(source)} characters, at most {MAX_CHARS}")
    alternatives = _Parser(source).whole()
    anything = rep(chars(ALL), 0, None)
    whole, within, meant = [], [], []
    for items in alternatives:
        starts = bool(items) and items[0] == Anchor(end=False)
        ends = bool(items) and items[-1] == Anchor(end=True)
        body = cat(_settled(items))
        whole.append(body)
        open_one = cat([*([] if starts else [anything]), body, *([] if ends else [anything])])
        within.append(open_one)
        short = lengths(body)[1] in (0, 1)
        meant.append(open_one if starts != ends or short else body)
    return Expression(alt(whole), alt(within), alt(meant))


def _settled(items: list[_Item]) -> list[Node]:
    """The items without the anchors at their ends. Raises NotHeldTo for others."""
    first, last = 0, len(items)
    while first < last and items[first] == Anchor(end=False):
        first += 1
    while last > first and items[last - 1] == Anchor(end=True):
        last -= 1
    settled: list[Node] = []
    for item in items[first:last]:
        if isinstance(item, Anchor):
            raise NotHeldTo("^ and $ can be held to at the ends of an alternative alone")
        settled.append(item)
    return settled


class _Parser:
    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._depth = 0

    def whole(self) -> list[list[_Item]]:
        """The alternatives at the top. Raises NotHeldTo."""
        found = self._alternatives()
        if self._at < len(self._source):
            raise NotHeldTo("has a ) without its (")
        return found

    def _alternatives(self) -> list[list[_Item]]:
        """Alternatives up to a closing bracket or the end."""
        found: list[list[_Item | _Spread]] = []
        items: list[_Item | _Spread] = []
        while self._at < len(self._source) and self._source[self._at] != ")":
            if self._source[self._at] == "|":
                self._at += 1
                found.append(items)
                items = []
                continue
            self._piece(items)
        found.append(items)
        return [expanded for items in found for expanded in _expanded(items)]

    def _piece(self, items: list[_Item | _Spread]) -> None:
        character = self._source[self._at]
        if character == "(":
            items.append(self._group())
        elif character == "[":
            items.append(chars(self._set()))
        elif character in "^$":
            self._at += 1
            items.append(Anchor(end=character == "$"))
        elif character == ".":
            self._at += 1
            items.append(chars(characters.NO_LINE_END))
        elif character == "\\":
            items.append(chars(self._escape()))
        elif character in "*+?":
            raise NotHeldTo(f"has a {character} behind nothing that it could repeat")
        else:
            self._at += 1
            items.append(chars(self._one(character)))
        self._repeated(items)

    def _one(self, character: str) -> CharSet:
        code = ord(character)
        if 0xD800 <= code <= 0xDFFF:
            raise NotHeldTo("has half of a surrogate pair, which is no character")
        return ((code, code),)

    def _group(self) -> _Item | _Spread:
        opening = self._source[self._at : self._at + 4]
        for mark, name in _LOOKING.items():
            if opening.startswith(mark):
                raise NotHeldTo(f"{name} cannot be held to")
        if opening.startswith("(?"):
            found = _GROUP.match(self._source, self._at)
            if found is None:
                named = {"(?>": "an atomic group", "(?#": "a comment"}.get(opening[:3], "a group with flags")
                raise NotHeldTo(f"{named} cannot be held to")
            self._at = found.end()
        else:
            self._at += 1
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise NotHeldTo(f"has groups nested deeper than {MAX_NESTING}")
        alternatives = self._alternatives()
        self._depth -= 1
        if self._at >= len(self._source):
            raise NotHeldTo("has a ( without its )")
        self._at += 1
        if any(isinstance(item, Anchor) for items in alternatives for item in items):
            return _Spread(alternatives)
        return alt(cat(_settled(items)) for items in alternatives)

    def _repeated(self, items: list[_Item | _Spread]) -> None:
        """Apply what repeats the last item, if anything does; a second mark only says how much is tried first."""
        counts = self._counts()
        if counts is None:
            return
        low, high = counts
        item = items.pop()
        if isinstance(item, Anchor | _Spread):
            raise NotHeldTo("^ and $ within what is repeated cannot be held to")
        if self._at < len(self._source) and self._source[self._at] == "?":
            self._at += 1
        elif self._counts() is not None:
            raise NotHeldTo("has a repetition of a repetition; put the inner one into a group")
        items.append(rep(item, low, high))

    def _counts(self) -> tuple[int, int | None] | None:
        mark = self._source[self._at : self._at + 1]
        if mark and mark in "*+?":
            self._at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[mark]
        found = _COUNT.match(self._source, self._at)
        if found is None:
            return None
        first, comma, second = found.groups()
        if not first:
            # Python and ECMA 262 take {,3} and {} for those very characters; others for a count.
            raise NotHeldTo("has a count without its lower end")
        self._at = found.end()
        low = int(first[:9])
        high = low if not comma else int(second[:9]) if second else None
        if low > MAX_COUNT or (high or 0) > MAX_COUNT:
            raise NotHeldTo(f"counts to {max(low, high or 0)}, at most {MAX_COUNT}")
        if high is not None and high < low:
            raise NotHeldTo("has a count whose upper end is below its lower end")
        return low, high

    def _escape(self) -> CharSet:
        """The characters that an escape stands for."""
        found = _CODE.match(self._source, self._at)
        if found is not None:
            return self._coded(found)
        what = self._source[self._at + 1 : self._at + 2]
        self._at += 2
        if what in characters.SHORTHAND and what:
            return characters.SHORTHAND[what]
        if what in _CONTROL and what:
            return characters.of(_CONTROL[what])
        if what == "0" and not self._source[self._at : self._at + 1].isdigit():
            return characters.of("\0")
        if what == "c" and self._source[self._at : self._at + 1].isalpha() and self._source[self._at].isascii():
            self._at += 1
            return characters.of(chr(ord(self._source[self._at - 1]) % 32))
        if what.isdigit() or what == "k":
            raise NotHeldTo("a reference back to a group cannot be held to")
        if not what or (what.isascii() and what.isalpha()):
            raise NotHeldTo(f"the escape \\{what} cannot be held to")
        return self._one(what)

    def _coded(self, found: re.Match[str]) -> CharSet:
        self._at = found.end()
        code = int(next(group for group in found.groups() if group), 16)
        if 0xD800 <= code <= 0xDBFF and not found[3]:
            low = _CODE.match(self._source, self._at)
            if low is not None and low[2] and 0xDC00 <= int(low[2], 16) <= 0xDFFF:
                self._at = low.end()
                code = 0x10000 + ((code - 0xD800) << 10) + int(low[2], 16) - 0xDC00
        if 0xD800 <= code <= 0xDFFF:
            raise NotHeldTo("has half of a surrogate pair, which is no character")
        if code > characters.LAST:
            raise NotHeldTo("has an escape beyond the last character")
        return ((code, code),)

    def _set(self) -> CharSet:
        """A class in brackets."""
        self._at += 1
        negated = self._source.startswith("^", self._at)
        self._at += negated
        members: list[CharSet] = []
        while not self._source.startswith("]", self._at):
            if self._at >= len(self._source):
                raise NotHeldTo("has a [ without its ]")
            if self._source.startswith("[:", self._at):
                raise NotHeldTo("a named class such as [:alpha:] cannot be held to")
            low = self._member()
            ahead = self._source[self._at : self._at + 2]
            if ahead[:1] == "-" and len(ahead) == 2 and ahead[1] != "]":
                self._at += 1
                low = self._range(low, self._member())
            members.append(low)
        self._at += 1
        merged = characters.union(*members)
        if negated and characters.intersection(merged, characters.ASCII_SPACE):
            merged = characters.union(merged, characters.OTHER_SPACE)
        return characters.complement(merged) if negated else merged

    def _range(self, low: CharSet, high: CharSet) -> CharSet:
        if any(len(end) != 1 or end[0][0] != end[0][1] for end in (low, high)):
            raise NotHeldTo("has a range whose end is a class")
        if high[0][0] < low[0][0]:
            raise NotHeldTo("has a range whose end comes before its beginning")
        return characters.minus(((low[0][0], high[0][0]),), characters.SURROGATES)

    def _member(self) -> CharSet:
        if self._source.startswith("\\b", self._at):
            self._at += 2
            return characters.of("\b")
        if self._source.startswith("\\", self._at):
            return self._escape()
        self._at += 1
        return self._one(self._source[self._at - 1])


@dataclass(frozen=True, slots=True)
class _Spread:
    """A group that has anchors: each of its alternatives is one of whatever it stands in."""

    alternatives: list[list[_Item]]


def _expanded(items: list[_Item | _Spread]) -> list[list[_Item]]:
    made: list[list[_Item]] = [[]]
    for item in items:
        if isinstance(item, _Spread):
            made = [[*before, *each] for before in made for each in item.alternatives]
            if len(made) > MAX_ALTERNATIVES:
                raise NotHeldTo("^ and $ stand in too many groups")
        else:
            for each in made:
                each.append(item)
    return made
