"""Sets of characters: sorted, disjoint, inclusive ranges of code points."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

CharSet: TypeAlias = tuple[tuple[int, int], ...]

LAST = 0x10FFFF
NONE: CharSet = ()
SURROGATES: CharSet = ((0xD800, 0xDFFF),)
# Every character of a text: surrogates are none.
ALL: CharSet = ((0, 0xD7FF), (0xE000, LAST))


def of(*characters: str) -> CharSet:
    """The set of the given characters; "a-z" is a range, for whoever reads the code."""
    ranges = []
    for one in characters:
        if len(one) == 3 and one[1] == "-":
            ranges.append((ord(one[0]), ord(one[2])))
        else:
            ranges += [(ord(character), ord(character)) for character in one]
    return union(ranges)


def union(*sets: Iterable[tuple[int, int]]) -> CharSet:
    """What is in any of them."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(pair for one in sets for pair in one):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)


def intersection(one: CharSet, other: CharSet) -> CharSet:
    """What is in both."""
    found, i, j = [], 0, 0
    while i < len(one) and j < len(other):
        low, high = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if low <= high:
            found.append((low, high))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def complement(one: CharSet) -> CharSet:
    """All characters that are not in it."""
    gaps, at = [], 0
    for low, high in one:
        if at < low:
            gaps.append((at, low - 1))
        at = high + 1
    if at <= LAST:
        gaps.append((at, LAST))
    return intersection(tuple(gaps), ALL)


def minus(one: CharSet, other: CharSet) -> CharSet:
    """What is in the first and not in the second."""
    return intersection(one, complement(other))


def has(one: CharSet, character: str) -> bool:
    """Whether the character is in it."""
    code = ord(character)
    return any(low <= code <= high for low, high in one)


DIGITS = of("0-9")
WORD = of("0-9", "A-Z", "a-z", "_")
# ASCII's white space, and what Unicode or ECMA 262 adds: dialects disagree on it, so neither \s nor \S has it.
ASCII_SPACE = of("\t\n\v\f\r ")
OTHER_SPACE = union(
    of("\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff"), ((0x2000, 0x200B), (0x180E, 0x180E))
)
LINE_ENDS = of("\n\r\u2028\u2029\x85")
# What an escape with a letter stands for, and the dot.
SHORTHAND: dict[str, CharSet] = {
    "d": DIGITS,
    "w": WORD,
    "s": ASCII_SPACE,
    "D": complement(DIGITS),
    "W": complement(WORD),
    "S": complement(union(ASCII_SPACE, OTHER_SPACE)),
}
NO_LINE_END = complement(LINE_ENDS)
