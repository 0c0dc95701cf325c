"""The strategies by name: which scorers count, and how much."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from router.core import scorers
from router.core.catalog import KeywordRule, Model
from router.core.filters import Moment
from router.core.fleet import Candidate
from router.core.request_profile import RequestProfile
from router.core.scorers import Scorer

Weighted = tuple[tuple[Scorer, float], ...]

# A strategy's own scorer outweighs all others together; those choose among the replicas it leaves.
_STRATEGIES: Mapping[str, Weighted] = {
    "balanced": (
        (scorers.load, 1.0),
        (scorers.latency, 0.5),
        (scorers.affinity, 0.4),
        (scorers.price, 0.3),
        (scorers.weight, 0.2),
    ),
    "cheapest": ((scorers.price, 10.0), (scorers.load, 1.0), (scorers.affinity, 0.4)),
    "fastest": ((scorers.latency, 2.0), (scorers.load, 1.0)),
    "weighted": ((scorers.split, 10.0), (scorers.load, 1.0), (scorers.affinity, 0.4)),
    "tier": ((scorers.tier, 10.0), (scorers.load, 1.0), (scorers.affinity, 0.4)),
    "region": ((scorers.region, 10.0), (scorers.load, 1.0), (scorers.affinity, 0.4)),
}


def scorers_of(model: Model, question: str, labels: Mapping[str, str]) -> Weighted:
    """The model's scorers for one request."""
    if model.strategy != "keyword":
        return _STRATEGIES[model.strategy]
    rule = next((r for r in model.keywords if _matches(r, question, labels)), None)
    return ((_preferred(rule.use if rule else ()), 10.0), *_STRATEGIES["balanced"])


def _matches(rule: KeywordRule, question: str, labels: Mapping[str, str]) -> bool:
    if rule.task and labels.get("task") == rule.task:
        return True
    return bool(rule.words) and _pattern(rule.words).search(question) is not None


@lru_cache(maxsize=1024)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the words, whole, in any case."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)


def _preferred(names: tuple[str, ...]) -> Scorer:
    def preferred(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> list[float]:
        return [1.0 if c.deployment.name in names else 0.0 for c in candidates]

    return preferred
