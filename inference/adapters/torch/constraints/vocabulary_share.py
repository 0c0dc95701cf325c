"""How much of a vocabulary is made of given characters alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LOW = (1 << 64) - 1
# Classes whose share is remembered.
_KEPT = 1024


class VocabularyShare:
    """Called with a class of characters (see core.constraints.cost.members): the share of tokens made of it."""

    def __init__(self, vocabulary: Sequence[bytes]) -> None:
        masks = [_characters(token) for token in vocabulary if token]
        # ASCII up to "?", the rest of ASCII, anything else: three words a token.
        self._words = np.array([(m & _LOW, m >> 64 & _LOW, m >> 128) for m in masks], dtype=np.uint64).reshape(-1, 3)
        self._known: dict[int, float] = {}

    def __call__(self, members: int) -> float:
        """From 0 to 1."""
        share = self._known.get(members)
        if share is None:
            outside = np.array(
                [~members & _LOW, ~members >> 64 & _LOW, ~members >> 128 & 1],
                dtype=np.uint64,
            )
            inside = np.logical_not((self._words & outside).any(axis=1))
            share = float(inside.mean()) if len(self._words) else 0.0
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[members] = share
        return share


def _characters(token: bytes) -> int:
    bits = 0
    for byte in set(token):
        bits |= 1 << min(byte, 128)
    return bits
