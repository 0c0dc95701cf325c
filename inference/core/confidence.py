"""How sure a model was of an answer, gathered token by token for many answers at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.core.port import Confidence

Floats = NDArray[np.float32]


class ConfidenceTable:
    """Running sums, one row an answer."""

    def __init__(self, rows: int) -> None:
        self._logprob = np.zeros(rows)
        self._minimum = np.zeros(rows)
        self._entropy = np.zeros(rows)
        self._margin = np.zeros(rows)
        self._tokens = np.zeros(rows, np.int64)

    def reset(self, row: int) -> None:
        """Start a new answer in `row`."""
        self._logprob[row] = self._minimum[row] = self._entropy[row] = self._margin[row] = 0.0
        self._tokens[row] = 0

    def add(self, rows: NDArray[np.intp], logprob: Floats, entropy: Floats, margin: Floats) -> None:
        """Count one drawn token for each entry; a row may come several times."""
        np.add.at(self._logprob, rows, logprob)
        np.minimum.at(self._minimum, rows, logprob)
        np.add.at(self._entropy, rows, entropy)
        np.add.at(self._margin, rows, margin)
        np.add.at(self._tokens, rows, 1)

    def of(self, row: int) -> Confidence | None:
        """The answer's confidence so far; None before its first token."""
        tokens = int(self._tokens[row])
        if not tokens:
            return None
        return Confidence(
            mean_logprob=float(self._logprob[row] / tokens),
            min_logprob=float(self._minimum[row]),
            mean_entropy=float(self._entropy[row] / tokens),
            mean_margin=float(self._margin[row] / tokens),
            tokens=tokens,
        )
