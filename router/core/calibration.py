"""The figures that a cascade decides by: what `python -m router calibrate` writes and the router reads.

A score is a logistic function of named features (router.core.cascade_features), so that the file says by itself what
moved a decision. Features that the file does not name weigh nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

Probability = Annotated[float, Meta(ge=0, le=1)]


class Logistic(Struct, frozen=True, forbid_unknown_fields=True):
    """P(yes) = 1 / (1 + exp(-(bias + sum of weight * (feature - mean) / scale)))."""

    bias: float
    weights: dict[str, float]
    # Per feature; unset features have mean 0 and scale 1.
    means: dict[str, float] = {}
    scales: dict[str, float] = {}

    def __post_init__(self) -> None:
        if any(scale <= 0 for scale in self.scales.values()):
            raise ValueError("every scale must be above 0")

    def score(self, features: Mapping[str, float]) -> float:
        """The probability, 0 to 1. A feature that is missing counts as its mean."""
        total = self.bias
        for name, weight in self.weights.items():
            mean = self.means.get(name, 0.0)
            total += weight * (features.get(name, mean) - mean) / self.scales.get(name, 1.0)
        return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, total))))


class Calibration(Struct, frozen=True, forbid_unknown_fields=True):
    """When to begin higher up the chain, and when to leave a member's answer behind."""

    version: Literal[1] = 1
    # P(the first member's answer will not do), from the prompt alone; at or above the threshold it is not asked.
    difficulty: Logistic | None = None
    difficulty_threshold: Probability = 1.0
    # P(the answer will do), from the prompt and the answer; below the threshold the next member is asked.
    confidence: Logistic | None = None
    confidence_threshold: Probability = 0.0
    # Where the figures come from, for people.
    source: str = ""
