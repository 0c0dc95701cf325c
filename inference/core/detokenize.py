"""Token ids to text, token by token."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable


class Detokenizer:
    """Gives text as soon as it is whole characters.

    Tokens are bytes, and a character may need several of them: its bytes wait here until it is complete. Bytes that
    can never become a character read as U+FFFD, as everywhere else; those of a character cut off by the end of the
    answer are dropped. However the tokens are split into calls, the joined text is the same.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, tokens: Iterable[int]) -> str:
        """The text that these tokens complete."""
        return self._decoder.decode(b"".join(map(self._token_bytes, tokens)))
