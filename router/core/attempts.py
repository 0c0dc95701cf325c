"""The attempts of one request: who is asked next, whether that may be, and when to give up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from headrace.router.v1 import router_pb2
from mesh.clock import Clock
from mesh.errors import DeadlineExceeded, Internal, MeshError, Outcome
from mesh.resilience import Permit, RetryBudgets
from router.core import patience
from router.core.attempt import FAILOVER, HEDGE, RESUME, Attempt, Cause, label_of
from router.core.attempt_limits import AttemptLimits
from router.core.catalog import Timers
from router.core.choosing import Choosing
from router.core.fleet import Candidate
from router.core.mirroring import Mirrors
from router.core.node_request import node_request
from router.core.poison_guard import PoisonGuard, breaks
from router.core.ports import Metrics, Nodes
from router.core.refusals import moves_on
from router.core.routed_request import Opened, Opening, RoutedRequest, only_progress
from router.core.selector import Selected, Selector

_INHERITED = (FAILOVER, RESUME)
# How long a retry that nothing is left for waits until its target is proven, and how often it looks.
_MAX_PROOF_WAIT_S: Final = 5.0
_PROOF_LOOK_S: Final = 0.05


@dataclass(frozen=True)
class Dispatch:
    """What all requests share."""

    budgets: RetryBudgets
    selector: Selector
    nodes: Nodes
    mirrors: Mirrors
    metrics: Metrics
    clock: Clock
    poison: PoisonGuard


class Attempts:
    """Makes attempts until one has its first message. Every attempt is ended by the time the request is."""

    def __init__(self, dispatch: Dispatch, request: RoutedRequest) -> None:
        self._dispatch = dispatch
        self.request = request
        model, budgets = request.route.model, dispatch.budgets
        self._limits = AttemptLimits(
            budgets.of(model.name), budgets.policy, model, request.message.budget, request.profile.tenant
        )
        # In the order in which they began.
        self.made: list[Attempt] = []
        # What is asked beside the answer, and is paid for by the same request.
        self._beside: list[Attempts] = []
        self._choosing = Choosing(dispatch.selector, dispatch.clock, request, self._limits)
        # Replicas that failed before the first token in a way that may be the request's own doing.
        self._broken: frozenset[str] = frozenset()

    def beside(self, request: RoutedRequest) -> Attempts:
        """Attempts of another request on this one's behalf: they end with it, and count towards what it costs."""
        attempts = Attempts(self._dispatch, request)
        self._beside.append(attempts)
        return attempts

    def all_made(self) -> list[Attempt]:
        """The request's own attempts, and after them those made beside it."""
        return [*self.made, *(attempt for attempts in self._beside for attempt in attempts.all_made())]

    def budget_left(self) -> float | None:
        """What the request may still cost, in millionths of a dollar; None where nothing limits it."""
        return self._limits.cost_left(sum(attempt.cost for attempt in self.all_made()))

    async def open(self, opening: Opening) -> Opened:
        """The next attempt that has its first message, with it. Raises the error to end the request with."""
        cause = opening.cause
        while True:
            choice = await self._choosing.next(opening, len(self.made), self.budget_left())
            attempt = await self._begin(choice, opening, cause)
            if attempt is None:
                continue
            opened = await self._first(attempt, opening)
            if opened is not None:
                self._limits.answered(opened.attempt)
                return opened
            cause = FAILOVER if opening.resumption is None else RESUME

    def failed(self, attempt: Attempt, error: MeshError) -> None:
        """Take in how an attempt failed. Raises the error that nothing else should be tried after."""
        late = self.request.deadline.passed()
        suspicious = attempt.first_s is None and breaks(error)
        counts = not late and patience.speaks_against(attempt, error, self.request.timers)
        if suspicious and isinstance(error, Internal):
            # A defect at one who answers others well speaks of the request.
            counts &= not attempt.candidate.endpoint.reliability.proven(self._dispatch.clock.monotonic())
        attempt.fail(error, self.request.profile.prompt_tokens, counts=counts)
        self._count(attempt)
        self._limits.failed(attempt)
        self._choosing.failed(attempt, error)
        self.request.trace.note("attempt.failed", f"{attempt.candidate.key}: {error.reason}: {error.message}")
        if late:
            raise DeadlineExceeded("the request's time is over") from error
        if error.outcome is Outcome.CALLER_FAULT and not moves_on(error) and attempt.cause != RESUME:
            raise error
        if suspicious:
            self._broken |= {attempt.candidate.replica.id}
            self._dispatch.poison.failed_at(self.request.message, self._broken)

    def succeeded(self, attempt: Attempt) -> None:
        """An attempt's answer came whole."""
        attempt.succeed()
        self._limits.succeeded()
        self._count(attempt)

    def abandon(self, attempt: Attempt, reason: str) -> None:
        """An attempt is no longer wanted."""
        if attempt.ended_s is None:
            attempt.abandon(reason, self.request.profile.prompt_tokens)
            self._count(attempt)

    def close(self) -> None:
        """End whatever is under way; the caller has gone, or has its answer."""
        for attempt in self.all_made():
            self.abandon(attempt, "CANCELLED")

    async def _begin(self, choice: Selected, opening: Opening, cause: Cause) -> Attempt | None:
        """Start an attempt; None when the candidate closed its door meanwhile."""
        try:
            permit = choice.candidate.endpoint.admit()
        except MeshError as error:
            self.request.trace.note("attempt.refused", f"{choice.candidate.key}: {error.reason}")
            self._choosing.exclude(choice.candidate)
            return None
        try:
            # Going on from a refusal is no retry: it was as if that one had never been meant.
            free = self._choosing.refused_last and bool(self.made)
            paid = 0 if free else await self._pay(choice.candidate, cause)
            if paid is None:
                raise self._choosing.given_up("the mesh makes no more retries for now", "retry_budget")
            if cause in _INHERITED:
                await self._pace(choice.candidate)
            return self._start(choice, opening, cause, permit, paid)
        except BaseException:
            permit.release()
            raise

    async def _pay(self, candidate: Candidate, cause: Cause) -> int | None:
        """Pay for asking the candidate; None where it may not be asked.

        Where nothing is left to pay with, wait a while: others are asking the candidate, and their first tokens
        or faults will show what it is.
        """
        clock, deadline = self._dispatch.clock, self.request.deadline
        until = clock.monotonic() + deadline.cap(_MAX_PROOF_WAIT_S)
        while True:
            now = clock.monotonic()
            paid = self._limits.pay(cause, candidate, now, first=not self.made)
            if paid is not None or now >= until or candidate.endpoint.breaker.in_a_row:
                return paid
            await clock.sleep(_PROOF_LOOK_S)

    def _start(self, choice: Selected, opening: Opening, cause: Cause, permit: Permit, paid: int) -> Attempt:
        candidate = choice.candidate
        request = node_request(self.request, candidate, opening.resumption, self.budget_left())
        if choice.probe is not None:
            self._dispatch.mirrors.probe(choice.probe, request, self._timers_for(choice.probe))
        timers = self._timers_for(candidate)
        stream = self._dispatch.nodes.open(candidate, request, timers, self.request.deadline)
        attempt = Attempt(candidate, choice.group, cause, permit, stream, clock=self._dispatch.clock, timers=timers)
        attempt.paid = paid
        self.made.append(attempt)
        self.request.trace.note("attempt", f"{candidate.key} ({label_of(cause)})")
        return attempt

    async def _first(self, attempt: Attempt, opening: Opening) -> Opened | None:
        """The attempt with its first message, or its hedge with its own; None when none has one."""
        hedge = self.request.route.model.hedge
        if hedge is None or opening.resumption is not None:
            try:
                return Opened(attempt, await _first_of(attempt, tells_progress=opening.tells_progress))
            except MeshError as error:
                self.failed(attempt, error)
                return None
        return await self._race(attempt, opening, hedge.after_s)

    async def _race(self, attempt: Attempt, opening: Opening, after_s: float) -> Opened | None:
        racing = {asyncio.ensure_future(_first_of(attempt)): attempt}
        try:
            done, _ = await asyncio.wait(racing, timeout=after_s)
            second = None if done else self._hedge(attempt, opening)
            if second is not None:
                racing[asyncio.ensure_future(_first_of(second))] = second
            while racing:
                done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    runner = racing.pop(task)
                    error = task.exception()
                    if error is None:
                        return Opened(runner, task.result())
                    if not isinstance(error, MeshError):
                        raise error
                    self.failed(runner, error)
            return None
        finally:
            for task, loser in racing.items():
                self.abandon(loser, "HEDGE_LOST")
                task.cancel()

    def _hedge(self, attempt: Attempt, opening: Opening) -> Attempt | None:
        """A second attempt beside the first, if there is anybody to ask and a retry to spend."""
        if len(self.made) >= self._limits.max_attempts:
            return None
        self._choosing.exclude(attempt.candidate)
        choice = self._choosing.select(opening, self.budget_left())
        if isinstance(choice, MeshError):
            return None
        try:
            permit = choice.candidate.endpoint.admit()
        except MeshError:
            return None
        paid = self._limits.pay_hedge()
        if paid is None:
            permit.release()
            return None
        return self._start(choice, opening, HEDGE, permit, paid)

    async def _pace(self, candidate: Candidate) -> None:
        replica = candidate.replica
        wait = replica.pacer.wait(self._dispatch.clock.monotonic(), replica.capacity, replica.outstanding)
        if wait > 0.0:
            self.request.trace.note("pace", f"{candidate.key}: {wait * 1e3:.0f} ms")
            await self._dispatch.clock.sleep(self.request.deadline.cap(wait))

    def _timers_for(self, candidate: Candidate) -> Timers:
        others = len(self.made) + 1 < self._limits.max_attempts and self._dispatch.selector.has_others(
            self.request.route, candidate
        )
        return patience.timers_for(candidate, self.request.timers, self.request.deadline, others=others)

    def _count(self, attempt: Attempt) -> None:
        outcome = attempt.outcome.name if attempt.outcome is not None else "ABANDONED"
        self._dispatch.metrics.attempt(attempt.candidate.deployment.name, label_of(attempt.cause), outcome)


async def _first_of(attempt: Attempt, *, tells_progress: bool = False) -> router_pb2.GenerateResponse:
    """The attempt's first message; one that only says how far the node is only where it `tells_progress`."""
    message = await attempt.read()
    while only_progress(message) and not tells_progress:
        message = await attempt.read()
    return message
