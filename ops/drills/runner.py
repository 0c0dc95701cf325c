"""One drill from beginning to end: load, break, heal, judge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ops.drills.asking import AskedRequests
from ops.drills.environment import DrillEnvironment, own_environment
from ops.drills.fault_injection import broken, injected_faults
from ops.drills.load import Callers
from ops.drills.measure import Figures, Phases, figures
from ops.drills.requests import RequestRecord, RequestResult
from ops.drills.spec import Drill
from ops.drills.verdict import Check, judge
from ops.drills.watch import Watch, watching
from ops.failure import ExitCode, Failure
from ops.local.supervisor import Supervisor

_LOOK_S: Final = 0.05
# How long the mesh is watched after it is well again.
_QUIET_S: Final = 1.5
# Faults whose healing is the supervisor's: it begins when they do.
_SELF_HEALING: Final = "kill"


@dataclass(frozen=True)
class Outcome:
    """Everything that a report needs."""

    drill: Drill
    sabotaged: bool
    checks: tuple[Check, ...]
    figures: Figures
    phases: Phases
    records: tuple[tuple[RequestRecord, RequestResult], ...]
    events: tuple[tuple[float, str], ...]

    @property
    def passed(self) -> bool:
        """Whether every check was."""
        return all(check.passed for check in self.checks)


async def run(
    drill: Drill, *, sabotaged: bool, say: Callable[[str], None], on: DrillEnvironment | None = None
) -> Outcome:
    """Play the drill on a stack of its own, or on one that runs. Raises Failure where it cannot be played."""
    if on is not None:
        return await _play(drill, on, sabotaged, say)
    say("bringing the stack up")
    async with own_environment(drill) as environment:
        outcome = await _play(drill, environment, sabotaged, say)
        say("taking the stack down")
    return outcome


async def _play(drill: Drill, environment: DrillEnvironment, sabotaged: bool, say: Callable[[str], None]) -> Outcome:
    faults = injected_faults(drill, environment)
    if drill.load.bystanders and not environment.bystanders_key:
        raise Failure("bystanders need a key of another tenant", "play the drill on its own stack", ExitCode.USAGE)
    callers = Callers(drill.load, environment.url, environment.key, environment.bystanders_key)
    if problem := await callers.learn():
        raise Failure(f"the mesh does not answer before anything is broken: {problem}", "see: headrace status")
    targets = [part.target for part in drill.faults if part.target]
    called: dict[str, int] = {}
    pids = _pids(environment)
    async with callers.running(), watching(environment.stack, targets, callers.now) as watch:
        say(f"{drill.load.streams} callers ask")
        whole = await _pass(callers, drill, drill.load.before_s)
        before = _called(environment)
        async with broken(faults, callers.now) as broken_at:
            watch.events.append((broken_at, "broken"))
            say("broken")
            whole = whole and await _pass(callers, drill, drill.load.during_s)
        healed_at = callers.now()
        called = {name: count - before[name] for name, count in _called(environment).items()}
        watch.events.append((healed_at, "healed"))
        say("healed")
        whole = whole and await _pass(callers, drill, drill.load.after_s, lambda: _is_well(watch, callers, healed_at))
        say("the last answers come in")
    phases = Phases(broken_at, healed_at, callers.now())
    seen = figures(callers.records, callers.result, phases)
    _add_watched(seen, watch, phases, drill)
    seen.called, seen.aborted = called, not whole
    seen.restarts = len(pids - _pids(environment))
    asked = [fault for fault in faults if isinstance(fault, AskedRequests)]
    if asked:
        seen.requested = sum(fault.begun for fault in asked)
        seen.requested_otherwise = sum(fault.otherwise for fault in asked)
    records = tuple((one, callers.result(one)) for one in callers.records)
    checks = judge(drill.expect, seen)
    return Outcome(drill, sabotaged, checks, seen, phases, records, tuple(sorted(watch.events)))


def _never() -> bool:
    return False


def _is_well(watch: Watch, callers: Callers, healed_at: float) -> bool:
    """Whether everything has been on the path again for a while, so that no more is to be seen."""
    quiet_since = max(healed_at, watch.changes[-1][0] if watch.changes else healed_at)
    return bool(watch.changes) and watch.changes[-1][1] and callers.now() - quiet_since > _QUIET_S


async def _pass(callers: Callers, drill: Drill, seconds: float, enough: Callable[[], bool] = _never) -> bool:
    """Let time pass until it is enough; False as soon as the drill has cost too much."""
    end = callers.now() + seconds
    while (left := end - callers.now()) > 0 and not enough():
        if callers.losses > drill.abort_losses:
            return False
        await asyncio.sleep(min(left, _LOOK_S))
    return callers.losses <= drill.abort_losses


def _pids(environment: DrillEnvironment) -> set[tuple[str, int]]:
    return {(info.name, info.pid) for info in Supervisor(environment.state).processes() if info.pid}


def _called(environment: DrillEnvironment) -> dict[str, int]:
    return {name: int(provider.report()["calls"]) for name, provider in environment.providers.items()}


def _add_watched(seen: Figures, watch: Watch, phases: Phases, drill: Drill) -> None:
    healing = phases.broken_at if any(part.what == _SELF_HEALING for part in drill.faults) else phases.healed_at
    seen.eject_s = watch.ejected(phases.broken_at)
    seen.recover_s = watch.recovered(healing) if seen.eject_s is not None else None
    seen.opened = tuple(sorted(watch.opened))
    seen.closed = dict(sorted(watch.closed.items()))
