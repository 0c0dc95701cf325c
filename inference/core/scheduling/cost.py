"""How long a step will take, learned from those that were run.

Seconds are taken for a sum of terms, each a count times a coefficient. The coefficients follow what is measured:
normalised least mean squares, in which each term takes its share of an error by its share of the estimate, so that
what a step did not have in it is not unlearned. Errors are cut off where they are large, so that one step that
something else held up moves little; what stays slow is learned within some tens of steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A term's coefficient before anything was measured: seconds of a 135M-parameter model on two slow cores. Too slow a
# guess makes the first steps short, too fast a one makes them long.
_GUESS = (0.004, 0.001, 0.0004, 1e-6, 3e-7)
# How much of an error is believed, and how large a share of the estimate it may be.
_RATE, _LARGEST_ERROR = 0.25, 0.5
# Coefficients stay above this share of the guess: one at zero would learn nothing any more.
_LEAST = 1e-4


@dataclass(frozen=True, slots=True)
class Work:
    """What a step runs. Its terms: the step itself, and each of these."""

    # Tokens of answers, drafts included; tokens of prompts.
    answers: int = 0
    prompts: int = 0
    # Positions whose keys and values are read, once a sequence; and, summed over the tokens of prompts, those that each
    # attends to.
    read: int = 0
    attended: int = 0

    @classmethod
    def chunk(cls, computed: int, tokens: int) -> Work:
        """The next `tokens` of a prompt of which `computed` are known."""
        return cls(0, tokens, computed + tokens, tokens * computed + tokens * tokens // 2)

    def __add__(self, other: Work) -> Work:
        return Work(
            self.answers + other.answers,
            self.prompts + other.prompts,
            self.read + other.read,
            self.attended + other.attended,
        )

    def terms(self) -> NDArray[np.float64]:
        """The counts that the coefficients are about."""
        return np.array((1, self.answers, self.prompts, self.read, self.attended), np.float64)


class StepCost:
    """Used on the engine's thread only. Seconds of whatever clock the caller measures with."""

    def __init__(self) -> None:
        guess = np.array(_GUESS)
        self._coefficients = guess
        self._least = guess * _LEAST

    def of(self, work: Work) -> float:
        """The seconds that a step with this in it would take."""
        return float(self._coefficients @ work.terms())

    def answers(self, count: int, read: int) -> float:
        """What so many tokens of answers add to a step, in which `read` positions are read for them."""
        return float(self._coefficients[1] * count + self._coefficients[3] * read)

    def chunk(self, computed: int, tokens: int) -> float:
        """What the next `tokens` of a prompt of which `computed` are known add to a step."""
        _, _, token, read, attended = self._coefficients.tolist()
        context = computed + tokens
        return float(token * tokens + read * context + attended * tokens * (computed + tokens / 2))

    def prompt(self, computed: int, length: int) -> float:
        """What the rest of a prompt takes, in however many steps, but for reading its keys and values anew in each."""
        _, _, token, _, attended = self._coefficients.tolist()
        return float(token * (length - computed) + attended * (length * length - computed * computed) / 2)

    def fitting(self, computed: int, seconds: float) -> int:
        """How many of a prompt's next tokens add at most `seconds`, perhaps none."""
        _, _, token, read, attended = self._coefficients.tolist()
        # attended / 2 * n^2 + (token + read + attended * computed) * n + read * computed = seconds
        left = seconds - read * computed
        if left <= 0:
            return 0
        slope = token + read + attended * computed
        return int(2 * left / (slope + math.sqrt(slope * slope + 2 * attended * left)))

    def learn(self, work: Work, seconds: float) -> None:
        """Book what a step took."""
        parts = self._coefficients * work.terms()
        estimate = float(parts.sum())
        error = max(-_LARGEST_ERROR * estimate, min(_LARGEST_ERROR * estimate, seconds - estimate))
        # Each term's part of the estimate moves by its share of the squares.
        share = parts * parts / float(parts @ parts)
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = self._coefficients * (1 + _RATE * error * share / parts)
        self._coefficients = np.maximum(np.where(parts > 0, moved, self._coefficients), self._least)
