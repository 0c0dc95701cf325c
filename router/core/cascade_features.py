"""What a cascade looks at: features of a prompt, and of an answer. Pure functions, shared with the calibration.

Every feature is a finite float; names are stable, because calibration files refer to them.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Final, NamedTuple

_CODE = re.compile(r"```|\bdef \w+\(|\bclass \w+|[{};]\s*$|=>|</\w+>", re.MULTILINE)
_MATH = re.compile(r"[=+*/^<>]|\\[a-z]+|\b(?:prove|integral|derivative|equation|solve|probability)\b", re.IGNORECASE)
_REASONING = re.compile(
    r"\b(?:why|how|explain|compare|analy[sz]e|derive|step by step|design|evaluate)\b", re.IGNORECASE
)
_CHOICES = re.compile(r"^\s*\(?[A-E][).:]\s", re.MULTILINE)
_REFUSAL: Final = re.compile(
    r"\b(?:I(?:'m| am) (?:sorry|unable|not able)|I can(?:no|')t|I do(?:n't| not) (?:know|have)|as an AI)\b",
    re.IGNORECASE,
)
# Figures of a long prompt are taken over its beginning; what matters to difficulty is said early.
_MAX_CHARS: Final = 20_000
# An answer is repetitive when one phrase of so many words makes up much of it.
_PHRASE_WORDS: Final = 4


class Answer(NamedTuple):
    """What is known of an answer, or of its beginning. Logarithms are natural; None where the node does not say."""

    text: str
    mean_logprob: float | None = None
    min_logprob: float | None = None
    mean_entropy: float | None = None
    mean_margin: float | None = None
    refused: bool = False
    # The caller asked for JSON.
    wants_json: bool = False
    # The answer has come to its end.
    whole: bool = True


def prompt_features(text: str) -> dict[str, float]:
    """Features of the last question asked."""
    text = text[:_MAX_CHARS]
    words = text.split()
    count = max(1, len(words))
    return {
        "log_chars": math.log1p(len(text)),
        "log_words": math.log1p(len(words)),
        "mean_word_chars": sum(map(len, words)) / count,
        "digit_share": sum(c.isdigit() for c in text) / max(1, len(text)),
        "upper_share": sum(c.isupper() for c in text) / max(1, len(text)),
        "question_marks": float(min(10, text.count("?"))),
        "code_marks": float(min(20, len(_CODE.findall(text)))),
        "math_marks": float(min(40, len(_MATH.findall(text)))),
        "reasoning_words": float(min(10, len(_REASONING.findall(text)))),
        "choices": float(min(10, len(_CHOICES.findall(text)))),
        "distinct_words": len(set(words)) / count,
    }


def answer_features(answer: Answer) -> dict[str, float]:
    """Features of an answer. Figures that the node did not give are left out."""
    features = {
        "answer_log_chars": math.log1p(len(answer.text)),
        "refusal": float(answer.refused or bool(_REFUSAL.search(answer.text[:400]))),
        "repetition": repetition(answer.text),
        "invalid_format": float(answer.wants_json and answer.whole and not _is_json(answer.text)),
        "empty": float(not answer.text.strip()),
    }
    for name in ("mean_logprob", "min_logprob", "mean_entropy", "mean_margin"):
        value = getattr(answer, name)
        if value is not None and math.isfinite(value):
            features[name] = value
    return features


def repetition(text: str) -> float:
    """The share of a text's phrases that repeat an earlier one, 0 to 1."""
    words = text.split()
    phrases = [tuple(words[i : i + _PHRASE_WORDS]) for i in range(len(words) - _PHRASE_WORDS + 1)]
    if not phrases:
        return 0.0
    return 1.0 - len(Counter(phrases)) / len(phrases)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
