"""What compiling a grammar costs, told from its text, and a form of it that costs less.

A compile cannot be interrupted, so it is judged before. The text is xgrammar's own print of a grammar, in which
schemas, expressions, structural tags and grammars are alike. Nearly all of the time goes into walking the vocabulary
once for each place where a character is read: the whole of it where any character may stand, next to none of it for a
digit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from inference.core.constraints.regex_size import written_out

# Repetitions up to here are written out by the compiler; longer ones are stepped through one by one.
WRITTEN_OUT = 128
# Bit c of a class stands for the ASCII character c, this one for all others.
OTHERS = 1 << 128
# Shares of a whole walk, measured: a byte of a literal, a class at least, and what a rule costs wherever it is used.
_LITERAL, _CLASS, _USE = 1 / 256, 1 / 64, 1 / 8

_HEAD = re.compile(r"^([A-Za-z_][\w.-]*)(?:\[max_chars=\d+\])? ::= ", re.MULTILINE)
_TOKEN = re.compile(
    r'(?P<regex>Regex\("(?P<expression>(?:\\.|[^"\\])*)"[^)]*\))|"(?P<literal>(?:\\.|[^"\\])*)"'
    r"|(?P<class>\[(?:\\.|[^\]\\])*\])|(?P<rule>[A-Za-z_][\w.-]*)|\{(?P<least>\d+), (?P<most>-?\d+)\}",
    re.DOTALL,
)
# How the compiler prints the characters of a string with a length, and which of them JSON lets in.
_LOOSE, _STRICT = r"[^\"\\\r\n]", r"[^\x00-\x1f\"\\]"
_LENGTHS = re.compile(
    r'^(?P<name>[A-Za-z_][\w.-]*) ::= Regex\("\[\^\\\\x00-\\\\x1f\\"\\\\\\\\\]'
    r'\{(?P<least>\d+),(?P<most>\d+)\}", json_string=true\)$',
    re.MULTILINE,
)
_ONE_CLASS = re.compile(r"^([A-Za-z_][\w.-]*) ::= \(\((\[(?:\\.|[^\]\\])*\])\)\)$", re.MULTILINE)
_ESCAPED = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_MARK = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)|[^\\]", re.DOTALL)
_NAMED = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "f": "\f", "v": "\v", "a": "\a", "b": "\b", "e": "\x1b"}


def counted(text: str, spelt: int) -> str:
    """The grammar with repetitions of one class beyond `spelt` times counted by the matcher, not written out.

    That takes one place however long the repetition may become; only near its end do masks take longer.
    """
    used = 0

    def fresh() -> str:
        nonlocal used
        used += 1
        while f"counted_{used}" in text:
            used += 1
        return f"counted_{used}"

    def shorten(found: re.Match[str]) -> str:
        minimum, maximum = int(found["least"]), int(found["most"])
        if maximum <= spelt:
            return found.group()
        return f"{found['name']}[max_chars={maximum}] ::= {_minimum(_STRICT, minimum)}"

    classes = dict(_ONE_CLASS.findall(text))
    added: list[str] = []

    def count(found: re.Match[str]) -> str:
        minimum, maximum = int(found["least"]), int(found["most"])
        if maximum <= spelt or minimum > WRITTEN_OUT or found["name"] not in classes:
            return found.group()
        name, repeated = fresh(), classes[found["name"]]
        if found["name"].endswith("_characters") and repeated == _LOOSE:
            repeated = _STRICT
        added.append(f"{name}[max_chars={maximum}] ::= {_minimum(repeated, minimum)}\n")
        return name

    text = _LENGTHS.sub(shorten, text)
    repeats = re.compile(_skipping(r"(?P<name>[A-Za-z_][\w.-]*)\{(?P<least>\d+), (?P<most>\d+)\}"), re.DOTALL)
    text = repeats.sub(lambda found: count(found) if found["name"] else found.group(), text)
    return text.rstrip("\n") + "\n" + "".join(added)


def _minimum(repeated: str, minimum: int) -> str:
    return " ".join([repeated] * minimum + [f"{repeated}*"])


def _skipping(pattern: str) -> str:
    """`pattern`, but not within literals and classes: those match instead, without its groups."""
    return r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|' + pattern


def cost(text: str, share: Callable[[int], float]) -> float:
    """Whole walks of the vocabulary that compiling the grammar takes, about.

    `share` says how much of the vocabulary is made of a class's characters alone.
    """
    rules = dict(_rules(text))
    own = {name: _own(body, share) for name, body in rules.items()}
    total = 0.0
    for name, body in rules.items():
        total += own[name][0]
        last = ""
        for found in _TOKEN.finditer(body):
            if found["least"] is not None and last in own:
                walks, plain = own[last]
                total += (_times(found) - 1) * (walks if plain else _USE)
            last = found["rule"] or ""
    return total


def _rules(text: str) -> Iterator[tuple[str, str]]:
    heads = list(_HEAD.finditer(text))
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        yield head[1], text[head.end() : following.start() if following else len(text)]


def _own(body: str, share: Callable[[int], float]) -> tuple[float, bool]:
    """Walks of one rule's own places, and whether it uses no other: then a repetition of it is written out."""
    walks, plain = 0.0, True
    for found in _TOKEN.finditer(body):
        if found["expression"] is not None:
            walks += written_out(unescaped(found["expression"]), lambda piece: _place(piece, share))[0]
        elif found["literal"] is not None:
            walks += len(found["literal"]) * _LITERAL
        elif found["class"] is not None:
            walks += max(share(members(found["class"])), _CLASS)
        elif found["rule"] is not None:
            walks, plain = walks + _USE, False
    return walks, plain


def _place(piece: str, share: Callable[[int], float]) -> float:
    """Walks of one place of an expression."""
    if piece[0] not in "[\\.":
        return _LITERAL
    return max(share(2 * OTHERS - 1 if piece == "." else members(piece if piece[0] == "[" else f"[{piece}]")), _CLASS)


def _times(found: re.Match[str]) -> int:
    minimum, maximum = int(found["least"]), int(found["most"])
    return max(1, min(minimum if maximum < 0 else maximum, WRITTEN_OUT))


def unescaped(literal: str) -> str:
    """The characters of a literal as it is written."""

    def one(found: re.Match[str]) -> str:
        code = found[1] or found[2] or found[3]
        return chr(min(int(code, 16), 0x10FFFF)) if code else _NAMED.get(found[4], found[4])

    return _ESCAPED.sub(one, literal)


def members(written: str) -> int:
    """The characters of a class as it is written, as bits: see OTHERS."""
    inner = written[1:-1]
    negated = inner.startswith("^")
    marks = _MARK.findall(inner[negated:])
    bits, i = 0, 0
    while i < len(marks):
        bits |= _SHORTHAND.get(marks[i], 0)
        if marks[i] not in _SHORTHAND:
            ranged = i + 2 < len(marks) and marks[i + 1] == "-"
            low, high = ord(unescaped(marks[i])), ord(unescaped(marks[i + 2 if ranged else i])[0])
            bits |= _between(low, high)
            i += 2 * ranged
        i += 1
    return bits ^ _ALL if negated else bits


def _between(low: int, high: int) -> int:
    within = (1 << (min(high, 127) + 1)) - (1 << low) if low <= min(high, 127) else 0
    return within | (OTHERS if high > 127 else 0)


_ALL = 2 * OTHERS - 1
_DIGITS = _between(48, 57)
_WORD = _DIGITS | _between(65, 90) | _between(97, 122) | _between(95, 95)
_SPACE = _between(9, 13) | _between(32, 32)
_SHORTHAND = {
    mark: bits
    for small, bits in (("d", _DIGITS), ("w", _WORD), ("s", _SPACE))
    for mark, bits in ((f"\\{small}", bits), (f"\\{small.upper()}", bits ^ _ALL))
}
