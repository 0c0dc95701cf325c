"""Confidence from the few best alternatives of each token, for engines that do not show whole distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from inference.core.port import Confidence


class RunningConfidence:
    """Sums over one answer.

    The entropy counts everything below the given alternatives as one outcome, so it is a lower bound.
    """

    def __init__(self) -> None:
        self._tokens = 0
        self._logprob = 0.0
        self._minimum = 0.0
        self._entropy = 0.0
        self._margin = 0.0

    def add(self, logprob: float, best: Sequence[float]) -> None:
        """Count a token: its log probability, and the best alternatives' in falling order."""
        self._tokens += 1
        self._logprob += logprob
        self._minimum = min(self._minimum, logprob)
        shares = [math.exp(value) for value in best]
        rest = max(0.0, 1.0 - sum(shares))
        self._entropy -= sum(share * math.log(share) for share in (*shares, rest) if share > 0)
        if len(shares) > 1:
            self._margin += shares[0] - shares[1]

    def result(self) -> Confidence | None:
        """The figures; None before the first token."""
        n = self._tokens
        if not n:
            return None
        return Confidence(self._logprob / n, self._minimum, self._entropy / n, self._margin / n, n)
