"""Finds the tokens that llama.cpp's server does not report.

While a character is incomplete the server reports nothing, and then only the token that completes it, with the text
of all. The bytes of the tokens before it, and their number, are known; this finds tokens of these bytes.
"""

from __future__ import annotations

from collections.abc import Callable


class LostTokens:
    """Looks tokens up by their bytes. Building it reads the whole vocabulary."""

    def __init__(self, vocab_size: int, token_bytes: Callable[[int], bytes]) -> None:
        self._by_bytes = {raw: token for token in range(vocab_size) if (raw := token_bytes(token))}

    def find(self, raw: bytes, count: int) -> tuple[int, ...] | None:
        """`count` tokens that spell `raw`; None if there are none.

        Where several spellings fit, the one with the longest first token is taken, as a tokenizer merges from the
        left in the usual case; one token, by far the most frequent case, is always exact.
        """
        if count == 0:
            return () if not raw else None
        for length in range(len(raw) - count + 1, 0, -1):
            token = self._by_bytes.get(raw[:length])
            if token is None:
                continue
            rest = self.find(raw[length:], count - 1)
            if rest is not None:
                return (token, *rest)
        return None
