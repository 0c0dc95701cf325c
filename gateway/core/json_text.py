"""JSON that a caller wrote into a string: what whoever reads it later could not carry."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import accumulate
from typing import Final

from mesh.contract_limits import MAX_JSON_DEPTH

# Python reads no number of more than 4,300 digits.
_MAX_DIGITS: Final = 1000
_ESCAPED: Final = re.compile(r"\\u[dD][89a-fA-F]")
_PAIR: Final = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_NUMBER: Final = re.compile(rb"[0-9]{%d}" % _MAX_DIGITS)
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def fault_of(text: str, max_depth: int = MAX_JSON_DEPTH) -> str | None:
    """What is wrong with it, in words that follow the field's name; None where nothing is.

    Text that is no JSON at all is none of this function's business.
    """
    if lone_surrogate(text):
        return "holds half of an escaped surrogate pair, which is no character"
    if len(text) <= max_depth:
        # Most arguments are a line.
        return None
    raw = text.encode()
    digits = len(raw) >= _MAX_DIGITS and _NUMBER.search(raw) is not None
    if not digits and raw.count(b"[") + raw.count(b"{") <= max_depth:
        return None
    bare = _STRING.sub(b"", raw)
    if digits and _NUMBER.search(bare) is not None:
        return f"holds a number of {_MAX_DIGITS} digits or more"
    if any(depth > max_depth for depth in _depths(bare)):
        return f"nested deeper than {max_depth} levels"
    return None


def lone_surrogate(text: str) -> bool:
    """Whether an escape in it is half of a character: one of a UTF-16 pair without the other."""
    if "\\u" not in text or _ESCAPED.search(text) is None:
        return False
    # An escaped backslash before a "u" makes no escape of it.
    return _ESCAPED.search(_PAIR.sub("", text.replace("\\\\", "  "))) is not None


def _depths(bare: bytes) -> Iterable[int]:
    return accumulate(map(_STEP.__getitem__, bare.translate(None, _NO_BRACKETS)))
