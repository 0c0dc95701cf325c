"""How good each candidate is, from 0 to 1. A scorer sees all candidates at once: most scores are relative."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from router.core.filters import Moment
from router.core.fleet import Candidate, hash_of
from router.core.request_profile import RequestProfile

Scorer = Callable[[RequestProfile, Sequence[Candidate], Moment], list[float]]

_MASK = 0xFFFF_FFFF_FFFF_FFFF
# With affinity a replica may have so many times the mean load before the conversation moves on.
_BOUND = 1.25


def load(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> list[float]:
    """1 when idle, 1/2 when every place is taken, less with a queue; nearly full KV memory counts as much."""
    return [
        min(1.0 / (1.0 + c.replica.outstanding / c.replica.capacity), 1.0 - 0.5 * c.replica.kv_used**4)
        for c in candidates
    ]


def latency(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> list[float]:
    """1 for the fastest to the first token, by mean and 95th percentile in equal parts; 1 while nothing is known."""
    seconds = [0.5 * (c.ttft.mean + c.ttft.p95) for c in candidates]
    best = min((s for s in seconds if s > 0.0), default=0.0)
    return [best / s if s > 0.0 else 1.0 for s in seconds]


def price(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> list[float]:
    """1 for the cheapest, and for all when everything is free."""
    costs = [c.price for c in candidates]
    best = min(costs)
    # The offset keeps the order among paid ones where something is free.
    offset = 0.0 if best > 0.0 else max(costs) / 100.0
    if best + offset == 0.0:
        return [1.0] * len(candidates)
    return [(best + offset) / (cost + offset) for cost in costs]


def weight(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> list[float]:
    """The routing file's weight, relative to the largest."""
    largest = max(c.deployment.weight for c in candidates)
    return [c.deployment.weight / largest if largest else 0.0 for c in candidates]


def affinity(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> list[float]:
    """1 for the replica that the conversation belongs to, or for its next one when that is loaded above the bound.

    Highest random weight hashing (Thaler and Ravishankar, 1998) with bounded loads (Mirrokni et al., 2018).
    """
    total = 1
    for c in candidates:
        total += c.replica.outstanding
    bound = math.ceil(_BOUND * total / len(candidates))
    key, best, chosen = profile.prefix, -1, -1
    for i, c in enumerate(candidates):
        rank = _mix(key, c.hash)
        if rank > best and c.replica.outstanding < bound:
            best, chosen = rank, i
    scores = [0.0] * len(candidates)
    scores[chosen] = 1.0
    return scores


def split(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> list[float]:
    """1 for the deployment that the user falls to: shares as the weights say, and always the same for one user.

    Weighted highest random weight: each deployment draws -weight / ln(u) with u from the hash of user and name. Without
    a user the request itself is hashed, which makes it a plain weighted draw.
    """
    who = hash_of(f"{profile.tenant}\0{profile.user or profile.request_id}")
    best, chosen = -1.0, 0
    # Replicas of one deployment draw alike.
    for c in candidates:
        if c.deployment.weight > 0:
            u = (_mix(who, c.deployment_hash) + 0.5) / (_MASK + 1)
            draw = -c.deployment.weight / math.log(u)
            if draw > best:
                best, chosen = draw, c.deployment_hash
    return [1.0 if c.deployment_hash == chosen else 0.0 for c in candidates]


def tier(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> list[float]:
    """1 for deployments of the request's own tier."""
    wanted = profile.labels.get("tier", "")
    return [1.0 if c.deployment.tier == wanted else 0.0 for c in candidates]


def region(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> list[float]:
    """1 for deployments in the region that the request's label names."""
    wanted = profile.labels.get("region", "")
    return [1.0 if c.deployment.region == wanted else 0.0 for c in candidates]


def _mix(key: int, node: int) -> int:
    """64 well-mixed bits of both: the finalizer of SplitMix64."""
    x = (key ^ node) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)
