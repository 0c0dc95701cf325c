"""The attempts of one request: who is asked next, whether that may be, and when to give up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from headrace.common.v1 import generation_pb2
from headrace.inference.v1 import inference_pb2
from headrace.router.v1 import router_pb2
from mesh.clock import Clock, Deadline
from mesh.errors import DeadlineExceeded, MeshError, Outcome, Unavailable
from mesh.resilience import Permit, Stack, pauses
from router.core import progress
from router.core.attempt import Attempt
from router.core.catalog import Timers
from router.core.decision_trace import DecisionTrace
from router.core.fleet import Candidate
from router.core.mirroring import Mirrors
from router.core.ports import Metrics, Nodes
from router.core.prices import affordable
from router.core.selector import Selected, SelectionRequest, Selector

Opened = tuple[Attempt, router_pb2.GenerateResponse]
FIRST, FAILOVER, ESCALATION, HEDGE, RESUME, JUDGE = "first", "failover", "escalation", "hedge", "resume", "judge"
_INHERITED: Final = (FAILOVER, RESUME)
# With others to turn to, no silence may use up more than this share of the time that is left.
_PATIENCE: Final = 0.5
# A silence cut short that way speaks against the candidate only when it was so many times its usual worst.
_TELLING: Final = 4.0


@dataclass(frozen=True)
class Dispatch:
    """What all requests share."""

    stack: Stack
    selector: Selector
    nodes: Nodes
    mirrors: Mirrors
    metrics: Metrics
    clock: Clock


class Attempts:
    """Makes attempts until one has its first message. Every attempt is ended by the time the request is."""

    def __init__(
        self,
        dispatch: Dispatch,
        request: router_pb2.GenerateRequest,
        selection: SelectionRequest,
        *,
        timers: Timers,
        deadline: Deadline,
        trace: DecisionTrace,
    ) -> None:
        self._dispatch = dispatch
        self._request = request
        self._timers = timers
        self.deadline = deadline
        self._trace = trace
        model = selection.route.model
        self.selection = selection
        self.attempts: list[Attempt] = []
        # What was asked beside the answer, and is paid for by the same request.
        self.side_attempts: list[Attempt] = []
        # What the request may still do, of its own and of the model's.
        self._max_attempts = min(model.attempts, request.budget.attempts or model.attempts)
        self._cap = min((c for c in (model.cost_cap_micro_usd, request.budget.cost_micro_usd) if c), default=0)
        self._pauses = pauses(dispatch.stack.retry, self._max_attempts)
        self._free_resumes = 1
        self._last: MeshError | None = None

    @property
    def context(self) -> generation_pb2.RequestContext:
        """Who asks."""
        return self._request.context

    def budget_left(self) -> float | None:
        """What the request may still cost, in millionths of a dollar; None where nothing limits it."""
        return self._cap - sum(a.cost for a in (*self.attempts, *self.side_attempts)) if self._cap else None

    async def open(self, cause: str, resume: list[generation_pb2.Generation.Emitted] | None = None) -> Opened:
        """The next attempt that has its first message, with it. Raises the error to end the request with."""
        while True:
            choice = await self._choose()
            attempt = await self._begin(choice, cause, resume)
            if attempt is None:
                continue
            opened = await self._first(attempt, resume)
            if opened is not None:
                return opened
            cause = RESUME if resume is not None else FAILOVER

    def failed(self, attempt: Attempt, error: MeshError) -> None:
        """Take in how an attempt failed. Raises the error that nothing else should be tried after."""
        late = self.deadline.passed()
        attempt.fail(error, self.selection.profile.prompt_tokens, counts=not late and self._telling(attempt, error))
        self._count(attempt)
        self.selection.tried.add(attempt.candidate.key)
        self._last = error
        self._trace.note("attempt.failed", f"{attempt.candidate.key}: {error.reason}: {error.message}")
        if late:
            raise DeadlineExceeded("the request's time is over") from error
        if error.outcome is Outcome.CALLER_FAULT:
            raise error

    def succeeded(self, attempt: Attempt, summary: generation_pb2.GenerationSummary) -> None:
        """An attempt's answer came whole."""
        attempt.succeed(summary)
        self._dispatch.stack.budget.on_outcome(Outcome.OK)
        self._count(attempt)

    def abandon(self, attempt: Attempt, reason: str) -> None:
        """An attempt is no longer wanted."""
        if attempt.ended_s is None:
            attempt.abandon(reason, self.selection.profile.prompt_tokens)
            self._count(attempt)

    def close(self) -> None:
        """End whatever is under way; the caller has gone, or has its answer."""
        for attempt in self.attempts:
            self.abandon(attempt, "CANCELLED")

    async def _choose(self) -> Selected:
        if self.deadline.passed():
            raise DeadlineExceeded("the request's time is over")
        if len(self.attempts) >= self._max_attempts:
            raise self._given_up(f"{self._max_attempts} attempts were made", "attempts")
        self.selection.budget = self.budget_left()
        choice = self._dispatch.selector.choose(self.selection, self._dispatch.clock.monotonic(), self._trace)
        if isinstance(choice, MeshError) and self.selection.tried and self.selection.again:
            # Everybody has been tried once; whoever may be asked again is, after a pause.
            self.selection.tried.clear()
            await self._dispatch.clock.sleep(self.deadline.cap(next(self._pauses, 0.0)))
            choice = self._dispatch.selector.choose(self.selection, self._dispatch.clock.monotonic(), self._trace)
        if isinstance(choice, MeshError):
            if self._last is None or choice.outcome is not Outcome.FAULT:
                raise choice
            raise self._given_up(choice.message, "candidates") from choice
        return choice

    async def _begin(
        self, choice: Selected, cause: str, resume: list[generation_pb2.Generation.Emitted] | None
    ) -> Attempt | None:
        """Start an attempt; None when the candidate closed its door meanwhile."""
        budget = self._dispatch.stack.budget
        if not self.attempts:
            budget.on_request()
        elif cause == RESUME and self._free_resumes:
            # Such a stream has produced: one resume is earned, and while everything is down there are none.
            self._free_resumes -= 1
        elif cause != ESCALATION and not budget.take():
            raise self._given_up("the mesh makes no more retries for now", "retry_budget")
        try:
            permit = choice.candidate.endpoint.admit()
        except MeshError as error:
            self._trace.note("attempt.refused", f"{choice.candidate.key}: {error.reason}")
            self.selection.tried.add(choice.candidate.key)
            return None
        try:
            if cause in _INHERITED:
                await self._pace(choice.candidate)
            return self._start(choice, cause, permit, resume)
        except BaseException:
            permit.release()
            raise

    def _start(
        self, choice: Selected, cause: str, permit: Permit, resume: list[generation_pb2.Generation.Emitted] | None
    ) -> Attempt:
        candidate = choice.candidate
        request = self._node_request(candidate, resume)
        if choice.probe is not None:
            self._dispatch.mirrors.probe(choice.probe, request, self._timers_for(choice.probe))
        timers = self._timers_for(candidate)
        stream = self._dispatch.nodes.open(candidate, request, timers, self.deadline)
        attempt = Attempt(candidate, choice.group, cause, permit, stream, clock=self._dispatch.clock, timers=timers)
        self.attempts.append(attempt)
        self._trace.note("attempt", f"{candidate.key} ({cause})")
        return attempt

    async def _first(self, attempt: Attempt, resume: list[generation_pb2.Generation.Emitted] | None) -> Opened | None:
        """The attempt with its first message, or its hedge with its own; None when none has one."""
        hedge = self.selection.route.model.hedge
        if hedge is None or resume is not None:
            try:
                return attempt, await attempt.read()
            except MeshError as error:
                self.failed(attempt, error)
                return None
        return await self._race(attempt, hedge.after_s)

    async def _race(self, attempt: Attempt, after_s: float) -> Opened | None:
        racing = {asyncio.ensure_future(attempt.read()): attempt}
        try:
            done, _ = await asyncio.wait(racing, timeout=after_s)
            second = None if done else self._hedge(attempt)
            if second is not None:
                racing[asyncio.ensure_future(second.read())] = second
            while racing:
                done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    runner = racing.pop(task)
                    error = task.exception()
                    if error is None:
                        return runner, task.result()
                    if not isinstance(error, MeshError):
                        raise error
                    self.failed(runner, error)
            return None
        finally:
            for task, loser in racing.items():
                self.abandon(loser, "HEDGE_LOST")
                task.cancel()

    def _hedge(self, attempt: Attempt) -> Attempt | None:
        """A second attempt beside the first, if there is anybody to ask and a retry to spend."""
        if len(self.attempts) >= self._max_attempts:
            return None
        self.selection.tried.add(attempt.candidate.key)
        choice = self._dispatch.selector.choose(self.selection, self._dispatch.clock.monotonic(), self._trace)
        if isinstance(choice, MeshError) or not self._dispatch.stack.budget.take():
            return None
        try:
            permit = choice.candidate.endpoint.admit()
        except MeshError:
            return None
        return self._start(choice, HEDGE, permit, None)

    async def _pace(self, candidate: Candidate) -> None:
        replica = candidate.replica
        wait = replica.pacer.wait(self._dispatch.clock.monotonic(), replica.capacity, replica.outstanding)
        if wait > 0.0:
            self._trace.note("pace", f"{candidate.key}: {wait * 1e3:.0f} ms")
            await self._dispatch.clock.sleep(self.deadline.cap(wait))

    def _node_request(
        self, candidate: Candidate, resume: list[generation_pb2.Generation.Emitted] | None
    ) -> inference_pb2.GenerateRequest:
        request = inference_pb2.GenerateRequest(context=self._request.context, generation=self._request.generation)
        generation = request.generation
        generation.model = candidate.deployment.model
        generation.adapter = candidate.deployment.adapter or generation.adapter
        if resume is not None:
            generation.resume.extend(resume)
        if self.selection.logprobs and "logprobs" in candidate.deployment.capabilities:
            generation.sampling.logprobs = True
        if self.selection.budget is not None and not generation.sampling.HasField("max_tokens"):
            maximum = affordable(candidate.deployment.price, self.selection.profile, self.selection.budget)
            if maximum is not None:
                generation.sampling.max_tokens = maximum
        return request

    def _timers_for(self, candidate: Candidate) -> Timers:
        timers = candidate.deployment.timers or self._timers
        limit = self.deadline.left() * _PATIENCE
        if limit >= timers.first_token_s or len(self.attempts) + 1 >= self._max_attempts:
            return timers
        if not self._dispatch.selector.has_others(self.selection.route, candidate):
            return timers
        return msgspec.structs.replace(
            timers, first_token_s=max(limit, 1e-3), headers_s=max(min(timers.headers_s, limit), 1e-3)
        )

    def _telling(self, attempt: Attempt, error: MeshError) -> bool:
        """Whether an error speaks against the candidate: not when only the caller's hurry, or a queue, made it one."""
        full = attempt.candidate.deployment.timers or self._timers
        if error.reason not in (progress.FIRST_TOKEN, progress.HEADERS):
            return True
        replica = attempt.candidate.replica
        if replica.queued and replica.tokens_per_second > 0.0:
            return False
        given = attempt.timers.first_token_s
        return given >= full.first_token_s or given >= _TELLING * attempt.candidate.ttft.p95 > 0.0

    def _given_up(self, why: str, limit: str) -> MeshError:
        last = self._last
        if last is not None and last.outcome is Outcome.BACKPRESSURE:
            return last
        return Unavailable(
            f"no deployment answered: {why}" + (f"; the last one: {last.message}" if last else ""),
            reason="NO_HEALTHY_DEPLOYMENT",
            metadata={"limit": limit, "last_reason": last.reason if last else ""},
        )

    def _count(self, attempt: Attempt) -> None:
        outcome = attempt.outcome.name if attempt.outcome is not None else "ABANDONED"
        self._dispatch.metrics.attempt(attempt.candidate.deployment.name, attempt.cause, outcome)


def resumes(attempt: Attempt) -> Callable[[Candidate], bool]:
    """Which candidates can go on where the attempt stopped: equal weights and tokenizer, and able to resume."""
    was, revision = attempt.candidate.deployment, attempt.revision

    def can(candidate: Candidate) -> bool:
        deployment = candidate.deployment
        # Where no revision is known, only the deployment's own replicas are taken to be equal.
        equal = candidate.revision == revision if revision else deployment.name == was.name
        same = (deployment.model, deployment.adapter) == (was.model, was.adapter)
        return equal and same and candidate.can_resume

    return can
