"""Whether a drill was passed: each limit beside what was measured. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ops.drills.measure import Figures, ratio
from ops.drills.spec import Expect


@dataclass(frozen=True)
class Check:
    """One limit. `limit` and `seen` are for people."""

    what: str
    limit: str
    seen: str
    passed: bool


def judge(expect: Expect, seen: Figures) -> tuple[Check, ...]:
    """Every check, in the order in which they matter. All must pass; an aborted drill never does."""
    checks = [
        _at_most("requests lost", expect.lost, seen.lost),
        _at_most("streams severed", expect.severed, seen.severed),
        _at_most("answers with other words", expect.wrong, seen.wrong),
        _at_most("silent ends", 0, seen.silent),
        _at_least("answers", 1, seen.answered),
    ]
    wanted = (
        ("p99 during", expect.p99_during_s, seen.p99_s.get("during"), " s"),
        ("p99 after", expect.p99_after_s, seen.p99_s.get("after"), " s"),
        ("off the path after", expect.eject_s, seen.eject_s, " s"),
        ("back on it after", expect.recover_s, seen.recover_s, " s"),
        (
            "back on it, in times of an answer,",
            expect.recover_ratio,
            ratio(seen.recover_s, seen.p50_s.get("before")),
            "",
        ),
        ("attempts a request", expect.amplification, seen.amplification, ""),
        ("money spent", expect.cost_usd, seen.cost_usd, " $"),
        (
            "times the first token took",
            expect.first_token_ratio,
            ratio(seen.first_token_p50_s.get("during"), seen.first_token_p50_s.get("before")),
            "",
        ),
        ("times an answer took", expect.answer_ratio, ratio(seen.p50_s.get("during"), seen.p50_s.get("before")), ""),
        ("processes that ended", expect.restarts, seen.restarts, ""),
        ("the other tenant's questions touched", expect.bystanders_touched, seen.bystanders_touched, ""),
    )
    checks += [_at_most(what, limit, value, unit) for what, limit, value, unit in wanted if limit is not None]
    if seen.requested is not None:
        checks.append(_at_least("requests that are the fault", 1, seen.requested))
        checks.append(_at_most("of them ended otherwise than is right", 0, seen.requested_otherwise))
    if expect.min_spliced:
        checks.append(_at_least("streams resumed", expect.min_spliced, seen.spliced))
    checks += [_at_least(f"calls of {n}", minimum, seen.called.get(n, 0)) for n, minimum in expect.min_called.items()]
    checks += [_at_most(f"calls of {n}", maximum, seen.called.get(n, 0)) for n, maximum in expect.max_called.items()]
    for name in expect.breaker_closed:
        opened = name in seen.opened
        checks.append(Check(f"breaker of {name}", "stays closed", "opened" if opened else "closed", not opened))
    if seen.aborted:
        checks.append(Check("losses", "within the drill's limit", "past it: stopped early", passed=False))
    return tuple(checks)


def _at_most(what: str, limit: float, seen: float | None, unit: str = "") -> Check:
    if seen is None:
        return Check(what, f"at most {limit:g}{unit}", "never", passed=False)
    return Check(what, f"at most {limit:g}{unit}", f"{seen:g}{unit}", seen <= limit)


def _at_least(what: str, limit: float, seen: float) -> Check:
    return Check(what, f"at least {limit:g}", f"{seen:g}", seen >= limit)


def as_json(name: str, checks: tuple[Check, ...], seen: Figures, *, sabotaged: bool) -> dict[str, Any]:
    """The drill's last line, for programs."""
    measured = {key: value for key, value in vars(seen).items() if value is not None}
    failed = [f"{check.what}: {check.seen}, not {check.limit}" for check in checks if not check.passed]
    return {"drill": name, "passed": not failed, "sabotaged": sabotaged, "failed": failed, **measured}
