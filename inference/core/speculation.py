"""Guessing ahead: drafts from the text itself, and the decision whether guessing pays.

A draft is checked by running it together with the sequence's last token: at each position the model's own next token is
drawn with that position's own random number, and the draft counts as far as it agrees. Every emitted token is therefore
the token that would have been drawn without drafts, greedy or sampled. This is speculative sampling (Leviathan et al.,
ICML 2023) with a proposal that puts all mass on one token.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]

MAX_NGRAM = 4
MIN_NGRAM = 2
# Steps until the mode that lost is tried again, the first time.
PATIENCE = 64


def prompt_lookup(tokens: Tokens, count: int) -> Tokens:
    """Up to `count` tokens that followed the latest earlier occurrence of the last few tokens, or none.

    Prompt lookup decoding (Saxena, 2023): longer n-grams are tried first.
    """
    if count < 1 or len(tokens) <= MIN_NGRAM:
        return tokens[:0]
    text = tokens.tobytes()
    width = tokens.itemsize
    for length in range(min(MAX_NGRAM, len(tokens) - 1), MIN_NGRAM - 1, -1):
        pattern = text[-length * width :]
        # An occurrence must end before the text does; bytes may match across token borders, those are passed over.
        found = text.rfind(pattern, 0, len(text) - width)
        while found > 0 and found % width:
            found = text.rfind(pattern, 0, found + len(pattern) - 1)
        if found >= 0 and found % width == 0:
            start = found // width + length
            return tokens[start : start + count]
    return tokens[:0]


class DraftWidths:
    """How many tokens to guess for each sequence: more after a full hit, fewer after a miss. One row a sequence."""

    def __init__(self, rows: int, maximum: int) -> None:
        self._maximum = maximum
        self._start = min(4, maximum)
        self.width = np.full(rows, self._start, np.int32)

    def reset(self, row: int) -> None:
        """Start a new sequence in `row`."""
        self.width[row] = self._start

    def learn(self, row: int, drafted: int, accepted: int) -> None:
        """Book that of `drafted` tokens `accepted` held."""
        wanted = 2 * drafted if accepted == drafted else accepted + 1
        self.width[row] = max(1, min(self._maximum, wanted))


class Trust:
    """How often a sequence's next token was the one guessed for it, of late. One row a sequence.

    It costs nothing to know for guesses that were not run, so a text that begins to repeat itself is noticed.
    """

    WEIGHT = 0.25
    # An extra row costs a step a tenth to a third of what one more token saves.
    ENOUGH = 0.35

    def __init__(self, rows: int) -> None:
        self._rate = np.zeros(rows)
        self._guess = np.zeros(rows, np.int32)
        # Where the guessed token would stand; -1: none is open.
        self._at = np.full(rows, -1, np.int32)

    def reset(self, row: int) -> None:
        """Start a new sequence in `row`: it is trusted until its guesses fail."""
        self._rate[row] = 0.5
        self._at[row] = -1

    def enough(self, row: int, tokens: Tokens) -> bool:
        """Whether drafts are worth running after `tokens`, which show what became of the last guess."""
        at = self._at[row]
        if 0 <= at < len(tokens):
            held = tokens[at] == self._guess[row]
            self._rate[row] += self.WEIGHT * (float(held) - self._rate[row])
            self._at[row] = -1
        return bool(self._rate[row] >= self.ENOUGH)

    def guessed(self, row: int, token: int, at: int) -> None:
        """`token` is the guess for position `at`."""
        self._guess[row], self._at[row] = token, at


class Mode(enum.Enum):
    """What a step was: with drafts, or without."""

    PLAIN = 0
    DRAFTED = 1


@dataclass(slots=True)
class _Rates:
    """What steps of about one batch size gave, by mode: how many were seen, and tokens per second, smoothed."""

    seen: list[int] = field(default_factory=lambda: [0, 0])
    rate: list[float] = field(default_factory=lambda: [0.0, 0.0])
    since_probe: int = 0
    patience: int = PATIENCE
    drafting: bool = False


class PayOff:
    """Decides from measured tokens per second whether drafting pays, for each power of two of running sequences.

    Each mode is tried for a few steps, then the faster one stands and the other is probed again, ever more rarely while
    it keeps losing.
    """

    TRIAL = 6
    WEIGHT = 0.2
    MAX_PATIENCE = 4096

    def __init__(self) -> None:
        self._rates: dict[int, _Rates] = {}

    def drafts(self, running: int) -> bool:
        """Whether the next step with `running` sequences should be drafted."""
        rates = self._of(running)
        if rates.seen[Mode.DRAFTED.value] < self.TRIAL:
            return True
        if rates.seen[Mode.PLAIN.value] < self.TRIAL:
            return False
        better = rates.rate[Mode.DRAFTED.value] > rates.rate[Mode.PLAIN.value]
        rates.since_probe += 1
        if better != rates.drafting:
            # The work has changed, so it may change again.
            rates.drafting, rates.patience = better, PATIENCE
        if rates.since_probe > rates.patience:
            rates.since_probe = 0
            rates.patience = min(2 * rates.patience, self.MAX_PATIENCE)
            # The loser is measured afresh.
            rates.seen[Mode.PLAIN.value if better else Mode.DRAFTED.value] = 0
        return better

    def learn(self, running: int, mode: Mode, tokens: int, seconds: float) -> None:
        """Book a step of decoding alone that gave `tokens` in `seconds`, drafting included."""
        rates = self._of(running)
        rate = tokens / max(seconds, 1e-9)
        first = rates.seen[mode.value] == 0
        old = rates.rate[mode.value]
        rates.rate[mode.value] = rate if first else old + self.WEIGHT * (rate - old)
        rates.seen[mode.value] += 1

    def _of(self, running: int) -> _Rates:
        return self._rates.setdefault(running.bit_length(), _Rates())
