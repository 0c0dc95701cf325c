"""Who may be asked at all. Each filter keeps those candidates that pass; an empty result ends a group's turn."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from router.core.catalog import Ramp
from router.core.fleet import Candidate
from router.core.prices import estimate
from router.core.request_profile import RequestProfile


class Moment(NamedTuple):
    """What filters and scorers need besides the request: the time, what may still be spent, and chance."""

    now: float
    # Millionths of a dollar left; None: no cap.
    budget: float | None
    ramp: Ramp
    chance: random.Random


Filter = Callable[[RequestProfile, Sequence[Candidate], Moment], Sequence[Candidate]]


def capability(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> Sequence[Candidate]:
    """Can do what the request needs, by the routing file."""
    needs = profile.needs
    return [c for c in candidates if needs <= c.deployment.capabilities]


def tenant(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> Sequence[Candidate]:
    """May serve the tenant."""
    who = profile.tenant
    return [c for c in candidates if not c.deployment.tenants or who in c.deployment.tenants]


def policy(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> Sequence[Candidate]:
    """Is of the tier that the request's label names, or of none; is in the region that `require-region` names."""
    tier, region = profile.labels.get("tier", ""), profile.labels.get("require-region", "")
    kept = [c for c in candidates if not c.deployment.tier or c.deployment.tier == tier]
    return [c for c in kept if c.deployment.region == region] if region else kept


def context(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> Sequence[Candidate]:
    """Has room for prompt and answer, by an estimate. Where nobody has, see router.core.selector."""
    wanted = profile.prompt_tokens + profile.max_tokens
    return [c for c in candidates if not c.context or wanted <= c.context]


def cost(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> Sequence[Candidate]:
    """Is within what the request may still spend."""
    budget = moment.budget
    if budget is None:
        return candidates
    return [c for c in candidates if estimate(c.deployment.price, profile) <= budget]


def health(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> Sequence[Candidate]:
    """Is healthy, and is not leaving."""
    return [c for c in candidates if c.replica.healthy and not c.replica.draining]


def breaker(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> Sequence[Candidate]:
    """Is not taken to be down."""
    now = moment.now
    return [c for c in candidates if c.endpoint.breaker.blocked_until <= now]


def backpressure(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> Sequence[Candidate]:
    """Has not asked to be left alone."""
    now = moment.now
    return [c for c in candidates if c.endpoint.busy_until <= now]


def ramp(profile: RequestProfile, candidates: Sequence[Candidate], moment: Moment) -> Sequence[Candidate]:
    """Gets only part of its share while it is new or has just recovered, unless nobody else is there."""
    now, policy, chance = moment.now, moment.ramp, moment.chance
    since = now - policy.seconds
    if all([c.replica.joined_at <= since and c.endpoint.breaker.recovered_at <= since for c in candidates]):
        return candidates
    kept = [c for c in candidates if (share := c.share(now, policy)) >= 1.0 or chance.random() < share]
    return kept or candidates


# In this order: what the request or the file decides first, so that an error says what is really missing. The first
# depend on nothing but the request's kind, and are remembered for it; see router.core.selector.
KINDS: tuple[tuple[str, Filter], ...] = (("capability", capability), ("tenant", tenant), ("policy", policy))
FILTERS: tuple[tuple[str, Filter], ...] = (
    ("context", context),
    ("cost", cost),
    ("health", health),
    ("breaker", breaker),
    ("backpressure", backpressure),
    ("ramp", ramp),
)


def kind_of(profile: RequestProfile) -> tuple[object, ...]:
    """What the filters of KINDS look at: requests of one kind pass them alike."""
    labels = profile.labels
    return profile.needs, profile.tenant, labels.get("tier", ""), labels.get("require-region", "")
