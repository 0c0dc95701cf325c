"""What providers send, read leniently where their meaning is plain: numbers as 1.0, characters in two halves."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable
from typing import Any, Final, Generic, TypeVar

import msgspec

from inference.core.providers import failures

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]")
_INT32: Final = (1 << 31) - 1
# Text of an answer, as every provider names it; an empty string says nothing.
_SAYS_SOMETHING: Final = re.compile(
    r'"(?:content|text|refusal|arguments|partial_json|name|args|finish_reason|finishReason|stop_reason)"\s*:\s*["{]\s*[^"}\s]'
)


class BadChunk(failures.Malformed):
    """An event that cannot be read, and of which nothing says that a part of the answer was in it."""


def decode(decoder: msgspec.json.Decoder[T], data: str, what: str) -> T:
    """The event's content. Raises BadChunk, or Malformed where a part of the answer is lost with it.

    Strings of it may hold halves of surrogate pairs; see Halves and whole.
    """
    try:
        return _decode(decoder, data)
    except (ValueError, RecursionError) as error:
        kind = failures.Malformed if _SAYS_SOMETHING.search(data) else BadChunk
        raise kind(what) from error


def _decode(decoder: msgspec.json.Decoder[T], data: str) -> T:
    try:
        return decoder.decode(data)
    except msgspec.DecodeError:
        # Half of a pair is legal JSON, and more than msgspec reads.
        if not _HALF.search(data):
            raise
        return msgspec.convert(json.loads(data), type=decoder.type, strict=False)


def count(value: Any) -> int:
    """A count of tokens, from whatever a provider writes as one; 0 where it is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0
    return min(max(int(value), 0), _INT32)


def whole(text: str) -> str:
    """The text with pairs joined, and U+FFFD for a half that is alone."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", errors="surrogatepass").decode("utf-16-le", errors="replace")


def as_json(value: Any) -> str:
    """Decoded JSON as text; it may hold halves of pairs."""
    return whole(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


class Halves(Generic[K]):
    """Joins characters that a provider split over two pieces of a string."""

    def __init__(self) -> None:
        self._held: dict[K, str] = {}

    def join(self, key: K, text: str) -> str:
        """What can be given out of the string `key` now that `text` came for it; its last half may wait."""
        if not text or (text.isascii() and not self._held):
            return text
        text = self._held.pop(key, "") + text
        if "\ud800" <= text[-1] <= "\udbff":
            self._held[key] = text[-1]
            text = text[:-1]
        return whole(text)

    def lost(self) -> list[tuple[K, str]]:
        """The strings that ended with a half, each with what stands for it."""
        lost = [(key, "\ufffd") for key in self._held]
        self._held.clear()
        return lost
