r"""Reads callers' grammars, in the notation of the grammar compiler: EBNF as llama.cpp and others write it.

    root ::= "a" [b-d]* (other | "x"){2,3}   # a comment
    other ::= [^\n]+ | Regex("[0-9]{2}")

What could not be held to is refused by name: options of rules, looking ahead, tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .regex import characters
from .regex.characters import CharSet
from .regex.parsing import MAX_COUNT, MAX_NESTING, NotHeldTo, parse
from .regex.tree import Node, Ref, alt, cat, chars, literal, rep
from .rules import Rules, references

MAX_CHARS, MAX_RULES = 100_000, 6_000
_TOKEN = re.compile(
    r"(?P<space>[ \t\r]+|\#[^\n]*)|(?P<line>\n)|(?P<define>::=)|(?P<literal>\"(?:\\.|[^\"\\\n])*\")"
    r"|(?P<class>\[(?:\\.|[^\]\\\n])*\])|(?P<name>[A-Za-z_][\w.-]*)|(?P<count>\{\s*\d+\s*(?:,\s*\d*\s*)?\})|(?P<mark>[()|*+?])",
    re.DOTALL,
)
_ESCAPED = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))|(.)", re.DOTALL)
_NAMED = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "f": "\f", "v": "\v", "a": "\a", "b": "\b", "e": "\x1b"}
_ITSELF = frozenset("\"'\\]-[^/?")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def parse_grammar(source: str) -> Rules:
    """The rules. Raises NotHeldTo."""
    if len(source) > MAX_CHARS:
        raise NotHeldTo(f"has {len(source)} characters; at most {MAX_CHARS}")
    rules = Rules(_Parser(list(_tokens(source))).rules())
    for name, body in rules.named.items():
        for used in references(body):
            if used not in rules.named:
                raise NotHeldTo(f'rule "{used[:80]}", which {name[:80]!r} uses, is not defined')
    if rules.root not in rules.named:
        raise NotHeldTo(f'rule "{rules.root}" is not defined')
    return rules


def _tokens(source: str) -> Iterator[_Token]:
    at = 0
    while at < len(source):
        found = _TOKEN.match(source, at)
        if found is None:
            line = source.count("\n", 0, at) + 1
            raise NotHeldTo(f"line {line}: {source[at]!r} cannot be read")
        at = found.end()
        if found.lastgroup != "space":
            yield _Token(str(found.lastgroup), found.group())


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = [*tokens, _Token("line", "\n")]
        self._at = 0
        self._depth = 0

    def rules(self) -> dict[str, Node]:
        named: dict[str, Node] = {}
        while self._skip_lines():
            name = self._take()
            if self._peek().kind == "class":
                raise NotHeldTo("options of a rule, in brackets before ::=, cannot be held to")
            if name.kind != "name" or self._take().kind != "define":
                raise NotHeldTo(f"{name.text[:40]!r} stands where a rule should begin, with its name and ::=")
            if name.text in named:
                raise NotHeldTo(f'rule "{name.text[:80]}" is defined twice')
            if len(named) >= MAX_RULES:
                raise NotHeldTo(f"has more than {MAX_RULES} rules")
            named[name.text] = self._alternatives(top=True)
        return named

    def _peek(self, ahead: int = 0) -> _Token:
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def _take(self) -> _Token:
        token = self._peek()
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _skip_lines(self) -> bool:
        """Whether anything follows."""
        while self._at < len(self._tokens) - 1 and self._peek().kind == "line":
            self._at += 1
        return self._at < len(self._tokens) - 1

    def _ends(self, *, top: bool) -> bool:
        """Whether the rule or the group ends here; a rule goes on over lines until another one begins."""
        if not top:
            self._skip_lines()
            return self._peek().text == ")" and self._peek().kind == "mark"
        ahead = 0
        while self._peek(ahead).kind == "line" and self._at + ahead < len(self._tokens) - 1:
            ahead += 1
        last = self._at + ahead >= len(self._tokens) - 1
        follows = self._peek(ahead + 1)
        begins = self._peek(ahead).kind == "name" and (follows.kind == "define" or self._optioned(ahead))
        if last or begins:
            return True
        self._at += ahead
        return False

    def _optioned(self, ahead: int) -> bool:
        return self._peek(ahead + 1).kind == "class" and self._peek(ahead + 2).kind == "define"

    def _alternatives(self, *, top: bool) -> Node:
        found: list[Node] = []
        parts: list[Node] = []
        while not self._ends(top=top):
            if self._at >= len(self._tokens) - 1:
                raise NotHeldTo("has a ( without its )")
            if self._peek() == _Token("mark", "|"):
                self._take()
                found.append(cat(parts))
                parts = []
            else:
                parts.append(self._repeated(self._element()))
        found.append(cat(parts))
        return alt(found)

    def _element(self) -> Node:
        token = self._take()
        match token.kind:
            case "literal":
                return literal(unescaped(token.text[1:-1]))
            case "class":
                return chars(class_of(token.text))
            case "name":
                return self._called(token) if self._peek().text == "(" and _is_call(token) else Ref(token.text)
            case "mark" if token.text == "(":
                return self._group()
            case _:
                raise NotHeldTo(f"has {token.text[:20]!r} where nothing can be repeated or closed")

    def _group(self) -> Node:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise NotHeldTo(f"has groups nested deeper than {MAX_NESTING}")
        inner = self._alternatives(top=False)
        self._depth -= 1
        self._take()
        return inner

    def _called(self, token: _Token) -> Node:
        if token.text != "Regex":
            raise NotHeldTo(f"{token.text} cannot be held to")
        self._take()
        source, closing = self._take(), self._take()
        if source.kind != "literal" or closing.text != ")":
            raise NotHeldTo("Regex: takes one expression in quotes")
        try:
            return parse(unescaped(source.text[1:-1])).whole
        except NotHeldTo as error:
            raise NotHeldTo(f"Regex: {error}") from error

    def _repeated(self, node: Node) -> Node:
        while self._peek().kind == "count" or (self._peek().kind == "mark" and self._peek().text in "*+?"):
            token = self._take()
            if token.kind == "mark":
                low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[token.text]
            else:
                low, high = _counts(token.text)
            node = rep(node, low, high)
        return node


def _is_call(token: _Token) -> bool:
    return token.text in ("Regex", "TagDispatch", "TokenTagDispatch", "Token", "ExcludeToken")


def _counts(text: str) -> tuple[int, int | None]:
    first, comma, second = text[1:-1].replace(" ", "").partition(",")
    low = int(first[:9])
    high = low if not comma else int(second[:9]) if second.strip() else None
    if low > MAX_COUNT or (high or 0) > MAX_COUNT:
        raise NotHeldTo(f"counts to {max(low, high or 0)}, at most {MAX_COUNT}")
    if high is not None and high < low:
        raise NotHeldTo("has a count whose upper end is below its lower end")
    return low, high


def unescaped(written: str) -> str:
    """The characters of a literal or class as it is written. Raises NotHeldTo."""
    return "".join(_character(found) for found in _ESCAPED.finditer(written))


def _character(found: re.Match[str]) -> str:
    code, what = found[1] or found[2] or found[3], found[4]
    if code:
        if int(code, 16) > characters.LAST or 0xD800 <= int(code, 16) <= 0xDFFF:
            raise NotHeldTo("has an escape that is no character")
        return chr(int(code, 16))
    if what is None:
        if 0xD800 <= ord(found[5]) <= 0xDFFF:
            raise NotHeldTo("has half of a surrogate pair, which is no character")
        return found[5]
    if what not in _NAMED and what not in _ITSELF:
        raise NotHeldTo(f"the escape \\{what} cannot be held to")
    return _NAMED.get(what, what)


def class_of(written: str) -> CharSet:
    """The characters of a class as it is written. Raises NotHeldTo."""
    inner = written[1:-1]
    negated = inner.startswith("^")
    marks = [(found[0], _member(found)) for found in _ESCAPED.finditer(inner, int(negated))]
    members: list[CharSet] = []
    at = 0
    while at < len(marks):
        low = marks[at][1]
        if at + 2 < len(marks) and marks[at + 1][0] == "-":
            high = marks[at + 2][1]
            if len(low) != 1 or len(high) != 1 or low[0][0] > high[0][1] or low[0][0] != low[0][1]:
                raise NotHeldTo("has a range whose end comes before its beginning")
            low = ((low[0][0], high[0][1]),)
            at += 2
        members.append(low)
        at += 1
    merged = characters.minus(characters.union(*members), characters.SURROGATES)
    return characters.complement(merged) if negated else merged


_CLASSES = {
    "d": characters.DIGITS,
    "w": characters.WORD,
    "s": characters.ASCII_SPACE,
    "D": characters.complement(characters.DIGITS),
    "W": characters.complement(characters.WORD),
    "S": characters.complement(characters.ASCII_SPACE),
}


def _member(found: re.Match[str]) -> CharSet:
    if found[4] in _CLASSES and found[4] is not None:
        return _CLASSES[found[4]]
    return characters.of(_character(found))
