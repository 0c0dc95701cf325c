"""Which characters a vocabulary can write."""

from __future__ import annotations

from collections.abc import Iterable

from .regex.characters import ALL, CharSet, intersection, union


# Lead bytes of UTF-8, and the characters behind each.
def _behind(lead: int) -> tuple[int, int]:
    bits, least = (6, 0x80) if lead < 0xE0 else (12, 0x800) if lead < 0xF0 else (18, 0x10000)
    first = lead & (0x1F if bits == 6 else 0x0F if bits == 12 else 0x07)
    return max(least, first << bits), min(0x10FFFF, ((first + 1) << bits) - 1)


_LEADS = {lead: _behind(lead) for lead in range(0xC2, 0xF5)}
_FOLLOWING = frozenset(range(0x80, 0xC0))


def writable_characters(vocabulary: Iterable[bytes]) -> CharSet:
    """The characters that tokens can write whatever stands around them: byte by byte, or as a token of their own."""
    single: set[int] = set()
    whole: set[int] = set()
    for token in vocabulary:
        if len(token) == 1:
            single.add(token[0])
        elif 1 < len(token) <= 4:
            whole.update(_character(token))
    found = [(code, code) for code in whole] + [(byte, byte) for byte in single if byte < 0x80]
    if single >= _FOLLOWING:
        found += [_LEADS[lead] for lead in single & _LEADS.keys()]
    return intersection(union(found), ALL)


def _character(token: bytes) -> list[int]:
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return []
    return [ord(text)] if len(text) == 1 else []
