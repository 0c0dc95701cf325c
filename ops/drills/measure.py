"""What the load saw, in figures. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ops.drills.requests import RequestRecord, RequestResult


@dataclass(frozen=True)
class Phases:
    """When the fault came and went, and when the load ended; seconds since the load began."""

    broken_at: float
    healed_at: float
    ended_at: float

    def of(self, moment: float) -> str:
        """The phase that a moment is in."""
        if moment < self.broken_at:
            return "before"
        return "during" if moment < self.healed_at else "after"


@dataclass
class Figures:
    """Everything measured. Seconds; None where there was nothing to measure."""

    requests: int = 0
    answered: int = 0
    lost: int = 0
    severed: int = 0
    wrong: int = 0
    # Ended without a finish and without an error: must never happen, so it is judged in every drill.
    silent: int = 0
    spliced: int = 0
    # Questions of another tenant that did not end well, or took more than one attempt.
    bystanders_touched: int = 0
    client_retries: int = 0
    p50_s: dict[str, float | None] = field(default_factory=dict)
    p99_s: dict[str, float | None] = field(default_factory=dict)
    first_token_p99_s: dict[str, float | None] = field(default_factory=dict)
    first_token_p50_s: dict[str, float | None] = field(default_factory=dict)
    max_gap_s: float = 0.0
    amplification: float = 1.0
    cost_usd: float = 0.0
    eject_s: float | None = None
    recover_s: float | None = None
    # Calls that each provider received while the fault was there.
    called: dict[str, int] = field(default_factory=dict)
    # Requests that were the fault: begun, and ended in another status than the one that is right for them.
    requested: int | None = None
    requested_otherwise: int = 0
    # Processes that ended.
    restarts: int = 0
    # Deployments whose breaker opened.
    opened: tuple[str, ...] = ()
    # Those whose breaker closed again, and how often each did.
    closed: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    aborted: bool = False


def figures(
    record: Sequence[RequestRecord], result: Callable[[RequestRecord], RequestResult], phases: Phases
) -> Figures:
    """The figures of the callers' side."""
    fates = Counter(result(one) for one in record)
    by_phase = {
        name: [one for one in record if phases.of(one.started) == name] for name in ("before", "during", "after")
    }
    # A stream that was under way when the fault came has felt it, too.
    there = [one for one in record if one.ended >= phases.broken_at and one.started < phases.healed_at]
    touched = [one for one in there if not one.bystander]
    whole = {name: [one for one in ones if result(one) is RequestResult.ANSWERED] for name, ones in by_phase.items()}
    return Figures(
        requests=len(record),
        answered=fates[RequestResult.ANSWERED],
        lost=fates[RequestResult.LOST],
        severed=fates[RequestResult.SEVERED],
        wrong=fates[RequestResult.WRONG],
        silent=sum(one.silent for one in record),
        spliced=sum(one.spliced for one in record),
        bystanders_touched=sum(
            one.attempts > 1 or result(one) is not RequestResult.ANSWERED for one in record if one.bystander
        ),
        client_retries=sum(one.client_retries for one in record),
        p50_s={name: quantile([one.seconds for one in ones], 0.5) for name, ones in whole.items()},
        p99_s={name: quantile([one.seconds for one in ones], 0.99) for name, ones in whole.items()},
        first_token_p99_s={
            name: quantile([one.first_at - one.started for one in ones], 0.99) for name, ones in whole.items()
        },
        first_token_p50_s={
            name: quantile([one.first_at - one.started for one in ones], 0.5) for name, ones in whole.items()
        },
        max_gap_s=round(max((one.max_gap_s for one in record), default=0.0), 3),
        amplification=round(sum(one.attempts for one in touched) / len(touched), 3) if touched else 1.0,
        cost_usd=round(sum(one.cost_usd for one in record), 6),
        errors=dict(Counter(one.error for one in record if one.error).most_common(10)),
    )


def ratio(during: float | None, before: float | None) -> float | None:
    """How many times as long something took as something else; None where either was not seen."""
    if during is None or not before:
        return None
    return round(during / before, 2)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile, to the millisecond; None of nothing."""
    if not values:
        return None
    ranked = sorted(values)
    return round(ranked[max(0, math.ceil(share * len(ranked)) - 1)], 3)
