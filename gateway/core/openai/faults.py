"""Where in a body the fault lies that a decoder finds without saying where."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gateway.core.json_text import lone_surrogate
from mesh.contract_limits import MAX_JSON_DEPTH

# A string without an end goes to the body's end, or it would be searched again from each quote within it.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{},:]|NaN|Infinity', re.DOTALL)
# The search takes milliseconds at most; what lies beyond is told without its place.
_MAX_TOKENS: Final = 50_000
# Deeper than anything that is understood.
_MAX_DEPTH: Final = MAX_JSON_DEPTH
# What is below these the caller named, or nobody reads field by field.
_LEAVES: Final = frozenset({"logit_bias", "metadata", "parameters", "schema", "prediction"})
_NOT_NUMBERS: Final = (b"NaN", b"Infinity")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a body, in words, and where; `number` says that a value is no number that JSON has."""

    field: str
    what: str
    number: bool = False


def find_fault(body: bytes) -> Fault | None:
    """The first fault; None where that is none of the kinds known here."""
    walk = _Walk()
    for count, match in enumerate(_TOKEN.finditer(body)):
        token = match[0]
        if token[:1] == b'"':
            if lone_surrogate(token.decode(errors="replace")):
                return Fault(walk.field(), "half of an escaped surrogate pair is no character")
            walk.last = token
        elif token in _NOT_NUMBERS:
            return Fault(walk.field(), "a finite number is needed", number=True)
        else:
            walk.step(token)
            if len(walk.path) > _MAX_DEPTH:
                return Fault(walk.field(), "nested too deeply")
        if count >= _MAX_TOKENS:
            break
    return None


class _Walk:
    """The place in a document, token by token."""

    def __init__(self) -> None:
        # Of each open object the key, of each open list the position.
        self.path: list[str | int] = []
        self.last = b""

    def step(self, token: bytes) -> None:
        if token == b"{":
            self.path.append("")
        elif token == b"[":
            self.path.append(0)
        elif not self.path:
            return
        elif token in (b"]", b"}"):
            self.path.pop()
        elif token == b":":
            self.path[-1] = self.last[1:-1].decode(errors="replace")
        elif isinstance(self.path[-1], int):
            self.path[-1] += 1

    def field(self) -> str:
        """The field, as messages of the decoder spell it."""
        made = ""
        for part in self.path:
            if isinstance(part, int):
                made += f"[{part}]"
                continue
            made += f".{part}" if made else part
            if part in _LEAVES:
                break
        return made
