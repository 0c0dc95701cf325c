"""Whether a cheap answer will do: asked before the call from the prompt, and after it from the answer as well."""

from __future__ import annotations

from typing import NamedTuple

from router.core.calibration import Calibration
from router.core.cascade_features import Answer, answer_features, prompt_features


class CascadeVerdict(NamedTuple):
    """A decision and the score behind it."""

    escalate: bool
    score: float
    why: str


# Whatever the calibration says, these answers are not answers.
_HARD = ("empty", "invalid_format")


def before(prompt: str, calibration: Calibration) -> CascadeVerdict:
    """Whether to begin with the next member. The score is the difficulty, 0 to 1."""
    if calibration.difficulty is None:
        return CascadeVerdict(False, 0.0, "no difficulty model")
    score = calibration.difficulty.score(prompt_features(prompt))
    hard = score >= calibration.difficulty_threshold
    return CascadeVerdict(hard, score, f"difficulty {score:.3f}, threshold {calibration.difficulty_threshold:.3f}")


def after(prompt: str, answer: Answer, calibration: Calibration) -> CascadeVerdict:
    """Whether to leave the answer behind. The score is the confidence, 0 to 1."""
    features = answer_features(answer)
    for name in _HARD:
        if features[name]:
            return CascadeVerdict(True, 0.0, f"the answer is not usable: {name}")
    if calibration.confidence is None:
        return CascadeVerdict(False, 0.0, "no confidence model")
    score = calibration.confidence.score(prompt_features(prompt) | features)
    poor = score < calibration.confidence_threshold
    return CascadeVerdict(poor, score, f"confidence {score:.3f}, threshold {calibration.confidence_threshold:.3f}")


def graded(grade: int, minimum: int) -> CascadeVerdict:
    """Whether to leave an answer behind that a judge model gave this grade, of 10."""
    return CascadeVerdict(grade < minimum, grade / 10, f"graded {grade} of 10, at least {minimum} wanted")
