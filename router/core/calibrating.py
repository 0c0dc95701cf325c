"""From labelled questions to a calibration and the curve that says what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from router.core.calibration import Calibration, Logistic
from router.core.cascade_features import Answer, answer_features, prompt_features
from router.core.fitting import Curve, Floats, curve, fit, held_out, random_share

# Groups are dealt into so many parts; each is judged by a model that saw only the others.
FOLDS = 4


class Question(Protocol):
    """One labelled question; see router.adapters.labelled."""

    @property
    def prompt(self) -> str: ...  # noqa: D102
    @property
    def weak(self) -> float: ...  # noqa: D102
    @property
    def strong(self) -> float: ...  # noqa: D102
    @property
    def group(self) -> str: ...  # noqa: D102
    @property
    def answer(self) -> str: ...  # noqa: D102
    @property
    def figures(self) -> Mapping[str, float]: ...  # noqa: D102


class Result(NamedTuple):
    """A calibration, with what it and its baselines cost on questions of groups it has not seen."""

    calibration: Calibration
    curve: Curve
    length_curve: Curve
    weak_quality: float
    strong_quality: float
    # The quality asked for, and the share that has to go to the strong model for it.
    target: float
    strong_share: float
    random_share: float
    length_share: float
    questions: int


def calibrate(questions: Sequence[Question], kept: float, source: str) -> Result:
    """Choose the threshold at which the cascade keeps a share `kept` (0 to 1) of the strong model's quality.

    The confidence is fitted where the questions carry the cheap model's answers, the difficulty from prompts alone. The
    curve is that of the score which decides last. Raises ValueError when there is nothing to learn.
    """
    weak = np.array([q.weak for q in questions])
    strong = np.array([q.strong for q in questions])
    groups = [q.group for q in questions]
    target = kept * float(strong.mean())
    answered = all(q.answer or q.figures for q in questions)
    names, features = _matrix([_features(q, with_answer=answered) for q in questions])
    fails = (weak < 0.5).astype(float)
    scores = held_out(names, features, fails, groups, FOLDS)
    found = curve(scores, weak, strong)
    share = found.share_for(target)
    threshold = _threshold(scores, share)
    lengths = curve(np.array([float(len(q.prompt)) for q in questions]), weak, strong)
    return Result(
        calibration=_calibration(fit(names, features, fails), threshold, source, answered=answered),
        curve=found,
        length_curve=lengths,
        weak_quality=float(weak.mean()),
        strong_quality=float(strong.mean()),
        target=target,
        strong_share=share,
        random_share=random_share(weak, strong, target),
        length_share=lengths.share_for(target),
        questions=len(questions),
    )


def _features(question: Question, *, with_answer: bool) -> dict[str, float]:
    features = prompt_features(question.prompt)
    if with_answer:
        known = question.figures.get
        answer = Answer(
            question.answer, known("mean_logprob"), known("min_logprob"), known("mean_entropy"), known("mean_margin")
        )
        features |= answer_features(answer)
    return features


def _matrix(rows: Sequence[Mapping[str, float]]) -> tuple[list[str], Floats]:
    names = sorted(set().union(*rows))
    return names, np.array([[row.get(name, np.nan) for name in names] for row in rows])


def _threshold(scores: Floats, share: float) -> float:
    if share <= 0.0:
        return 1.0
    return float(np.quantile(scores, 1.0 - share))


def _calibration(failing: Logistic, threshold: float, source: str, *, answered: bool) -> Calibration:
    """Fitted to failure: as it stands it is the difficulty; turned around it is the confidence."""
    if not answered:
        return Calibration(difficulty=failing, difficulty_threshold=threshold, source=source)
    trusting = Logistic(
        bias=-failing.bias,
        weights={name: -weight for name, weight in failing.weights.items()},
        means=failing.means,
        scales=failing.scales,
    )
    return Calibration(confidence=trusting, confidence_threshold=1.0 - threshold, source=source)
