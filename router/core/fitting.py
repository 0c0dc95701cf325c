"""Fits a cascade's scores to labelled questions, and draws what they are worth: the cost-quality curve. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from router.core.calibration import Logistic

Floats = npt.NDArray[np.float64]
# A ridge on standardized weights: few labels must not make a feature certain.
_RIDGE = 1.0
_MAX_STEPS = 50


class Curve(NamedTuple):
    """What escalating a growing share of questions, the highest scores first, costs and gives.

    `shares[k]` is the share escalated and `quality[k]` the mean quality then; k goes from none to all.
    """

    shares: Floats
    quality: Floats

    def share_for(self, quality: float) -> float:
        """The smallest share that reaches a mean quality; 1.0 where none does."""
        reached = np.nonzero(self.quality >= quality)[0]
        return float(self.shares[reached[0]]) if len(reached) else 1.0

    def quality_at(self, share: float) -> float:
        """The mean quality when that share is escalated."""
        return float(np.interp(share, self.shares, self.quality))


def curve(scores: Floats, weak: Floats, strong: Floats) -> Curve:
    """The curve of escalating by `scores`, given each question's quality (0 to 1) with either model; all are [n]."""
    order = np.argsort(-scores, kind="stable")
    gained = np.concatenate([[0.0], np.cumsum((strong - weak)[order])])
    count = len(scores)
    return Curve(np.arange(count + 1) / count, (weak.sum() + gained) / count)


def random_share(weak: Floats, strong: Floats, quality: float) -> float:
    """The share that a coin must escalate to reach a mean quality, in expectation."""
    gap = strong.mean() - weak.mean()
    return float(np.clip((quality - weak.mean()) / gap, 0.0, 1.0)) if gap > 0 else 0.0


def fit(names: Sequence[str], features: Floats, labels: Floats) -> Logistic:
    """Fit P(label) by ridge-penalized logistic regression.

    Newton's method (iteratively reweighted least squares; Hastie et al., The Elements of Statistical Learning, 4.4.1).
    `features` is [n, len(names)], NaN where a figure is unknown (it counts as the mean); `labels` is [n], 0 or 1.
    Raises ValueError when the labels are all alike.
    """
    if labels.min() == labels.max():
        raise ValueError("every label is the same: there is nothing to learn")
    means = np.nanmean(features, axis=0)
    scales = np.nanstd(features, axis=0)
    scales[~(scales > 1e-9)] = 1.0
    standard = np.nan_to_num((features - means) / scales)
    design = np.hstack([np.ones((len(labels), 1)), standard])
    penalty = np.full(design.shape[1], _RIDGE)
    penalty[0] = 0.0
    weights = np.zeros(design.shape[1])
    for _ in range(_MAX_STEPS):
        chance = 1.0 / (1.0 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (labels - chance) - penalty * weights
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curvature, gradient)
        weights += step
        if np.abs(step).max() < 1e-8:
            break
    return Logistic(
        bias=float(weights[0]),
        weights={name: float(weight) for name, weight in zip(names, weights[1:], strict=True)},
        means={name: float(mean) for name, mean in zip(names, means, strict=True)},
        scales={name: float(scale) for name, scale in zip(names, scales, strict=True)},
    )


def held_out(names: Sequence[str], features: Floats, labels: Floats, groups: Sequence[str], folds: int) -> Floats:
    """Score every question by a model that saw no question of its group. Groups are dealt to folds in sorted order."""
    dealt = {group: i % folds for i, group in enumerate(sorted(set(groups)))}
    fold_of = np.array([dealt[group] for group in groups])
    scores = np.zeros(len(labels))
    for fold in range(min(folds, len(dealt))):
        seen, unseen = fold_of != fold, fold_of == fold
        model = fit(names, features[seen], labels[seen])
        rows = (dict(zip(names, row, strict=True)) for row in features[unseen].tolist())
        scores[unseen] = [model.score({k: v for k, v in row.items() if not math.isnan(v)}) for row in rows]
    return scores
