"""Whether a grammar's masks come in time, tried on a part of the vocabulary before the whole of it is compiled for it.

Grammars that read one text in many ways, or whose rules end at every character, take milliseconds to minutes for one
mask, and neither a compile nor a mask can be interrupted. With every 16th token both take a 16th of the time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
import xgrammar

from inference.core.constraints.regex.parsing import NotHeldTo

from ..logits import allowed_tokens

_EVERY = 16
_WALKS = 2
_STEPS = 24
# Seconds of this thread's processor for one mask of the whole vocabulary, in the middle of those that were tried.
MASK_S = 0.004
# For all of one walk.
_WALK_S = 0.1


class Probe:
    """Walks through a grammar at random. Slow where few tokens lead is not found."""

    def __init__(self, vocabulary: Sequence[bytes]) -> None:
        # All single bytes, so that whatever may come can come.
        part = [*(bytes([i]) for i in range(256)), *(token for token in vocabulary[::_EVERY] if token)]
        self._size = len(part)
        self._every = max(1.0, len(vocabulary) / self._size)
        info = xgrammar.TokenizerInfo([*part, b""], xgrammar.VocabType.RAW, stop_token_ids=[self._size])
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def check(self, grammar: xgrammar.Grammar) -> None:
        """Raise NotHeldTo for a grammar whose masks would take too long."""
        compiled = self._compiler.compile_grammar(grammar)
        took = [second for seed in range(_WALKS) for second in self._walk(compiled, seed)]
        if took and sorted(took)[len(took) // 2] * self._every > MASK_S:
            raise _too_slow()

    def _walk(self, compiled: xgrammar.CompiledGrammar, seed: int) -> list[float]:
        """Seconds of each step. Raises NotHeldTo when they are too many."""
        matcher = xgrammar.GrammarMatcher(compiled)
        chance = np.random.default_rng(seed)
        words = torch.zeros((1, self._size // 32 + 1), dtype=torch.int32)
        took: list[float] = []
        for _ in range(_STEPS):
            before = time.thread_time()
            matcher.fill_next_token_bitmask(words)
            filled = time.thread_time()
            may = np.flatnonzero(allowed_tokens(words, self._size)[0].numpy())
            if not len(may):
                break
            token = int(chance.choice(may))
            between = time.thread_time()
            taken = matcher.accept_token(token)
            took.append(time.thread_time() - between + filled - before)
            if not taken or sum(took) > _WALK_S:
                break
        if sum(took) > _WALK_S:
            raise _too_slow()
        return took


def _too_slow() -> NotHeldTo:
    return NotHeldTo(
        "can be read in too many ways: what may come next would take too long to find; avoid repetitions of what is "
        "itself repeated or optional, and rules that begin with themselves"
    )
