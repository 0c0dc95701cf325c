"""Ids of calls."""

from __future__ import annotations

import hashlib
import re

from inference.core.tool_calls.formats import Format

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def fresh_id(source: bytes, form: Format) -> str:
    """The id of a call, for example "call_" and 24 letters and digits; the same for the same source."""
    if form.id_length:
        return letters(source, form.id_length)
    return f"call_{letters(source, 24)}"


def template_id(call_id: str, form: Format) -> str:
    """The id in a form that the template accepts, whoever gave it out."""
    if not call_id or not form.id_length or re.fullmatch(f"[a-zA-Z0-9]{{{form.id_length}}}", call_id):
        return call_id
    return letters(call_id.encode(), form.id_length)


def letters(source: bytes, count: int) -> str:
    """So many letters and digits that follow from the source, and no other source's; at most 43."""
    number = int.from_bytes(hashlib.blake2b(source, digest_size=32).digest(), "big")
    letters = []
    for _ in range(count):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return "".join(letters)
