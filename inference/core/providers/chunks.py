"""What providers send, read leniently where its meaning is plain."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, TypeVar

import msgspec

from inference.core.providers import failures
from inference.core.providers.halves import whole

T = TypeVar("T")
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


def as_json(value: Any) -> str:
    """Decoded JSON as text; it may hold halves of pairs."""
    return whole(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
