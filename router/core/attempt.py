"""One try of one candidate: its stream, its permit, what came of it, and what it cost."""

from __future__ import annotations

from typing import Final, TypeAlias

from headrace.common.v1 import generation_pb2
from headrace.router.v1 import router_pb2
from mesh.clock import Clock
from mesh.errors import MeshError, NotFound, Outcome, StreamCut, Unavailable
from mesh.resilience import Permit
from router.core.catalog import Timers
from router.core.fleet import Candidate
from router.core.ports import NodeStream
from router.core.prices import cost_of
from router.core.token_estimate import tokens_of_delta

# Why a deployment is asked, in the contract's own words.
Cause: TypeAlias = "generation_pb2.AttemptCause.ValueType"
FIRST: Final = generation_pb2.ATTEMPT_CAUSE_FIRST
FAILOVER: Final = generation_pb2.ATTEMPT_CAUSE_FAILOVER
ESCALATION: Final = generation_pb2.ATTEMPT_CAUSE_ESCALATION
HEDGE: Final = generation_pb2.ATTEMPT_CAUSE_HEDGE
RESUME: Final = generation_pb2.ATTEMPT_CAUSE_RESUME
SHADOW: Final = generation_pb2.ATTEMPT_CAUSE_SHADOW
JUDGE: Final = generation_pb2.ATTEMPT_CAUSE_JUDGE


def label_of(cause: Cause) -> str:
    """A cause in lower case, for metrics, the decision trace and readers of JSON."""
    return generation_pb2.AttemptCause.Name(cause).removeprefix("ATTEMPT_CAUSE_").lower()


# What an error of the provider behind a node bears; a node's own full queue does not.
_PROVIDERS_OWN: Final = "provider_status"


class Attempt:
    """Ends exactly once: succeeded, failed or abandoned. Whatever comes later is ignored."""

    __slots__ = (
        *("candidate", "cause", "cost", "ended_s", "error", "first_s", "group", "outcome", "paid", "reason", "repaid"),
        *(
            "revision",
            "timers",
            "token_ids",
            "usage",
            "_clock",
            "_permit",
            "_started",
            "_stream",
            "_summary",
            "_tokens",
        ),
    )

    def __init__(
        self,
        candidate: Candidate,
        group: int,
        cause: Cause,
        permit: Permit,
        stream: NodeStream,
        *,
        clock: Clock,
        timers: Timers,
    ) -> None:
        self.candidate = candidate
        self.group = group
        self.cause = cause
        # What was taken for it from the retries that its model's requests share.
        self.paid = 0
        # Whether that went back, because the attempt was answered.
        self.repaid = False
        self.timers = timers
        self.revision = candidate.revision
        self.outcome: Outcome | None = None
        self.reason = ""
        self.error: MeshError | None = None
        self.usage: generation_pb2.Usage | None = None
        self.cost = 0
        self.first_s: float | None = None
        self.ended_s: float | None = None
        # How many token ids came; a provider gives none.
        self.token_ids = 0
        self._permit = permit
        self._stream = stream
        self._clock = clock
        self._started = clock.monotonic()
        self._tokens = 0
        self._summary: generation_pb2.GenerationSummary | None = None
        candidate.replica.moved(1)

    async def read(self) -> router_pb2.GenerateResponse:
        """The next message.

        A stream that ends without its summary raises StreamCut, or Unavailable before any; so does a node that knows
        nothing of what the routing file says it serves.
        """
        try:
            message = await self._stream.read()
        except NotFound as error:
            if self._callers(error):
                raise
            raise self._not_loaded(error) from error
        if message is None:
            cls = Unavailable if self.first_s is None else StreamCut
            raise cls("the stream ended without its summary", reason="STREAM_CUT")
        if not message.deltas and not message.HasField("summary"):
            # It has not begun: it only says how far it is.
            return message
        if self.first_s is None:
            self.first_s = self._clock.monotonic() - self._started
            self.candidate.endpoint.answering(self._permit)
        if message.HasField("summary"):
            # A copy: what the caller is told may count other attempts as well.
            self._summary = generation_pb2.GenerationSummary()
            self._summary.CopyFrom(message.summary)
        for delta in message.deltas:
            count = len(delta.token_ids)
            self.token_ids += count
            self._tokens += count or tokens_of_delta(delta)
        return message

    def finish(self) -> None:
        """The summary came: let the stream end by itself, so that the node sees a clean one."""
        self._stream.finish()

    def succeed(self) -> None:
        """The answer came whole: its summary was read."""
        summary = self._summary
        assert summary is not None  # nobody ends an attempt so before its summary came
        if self._end(Outcome.OK, ""):
            self.usage = summary.usage
            self.revision = summary.revision or self.revision
            self.cost = cost_of(self.candidate.deployment.price, summary.usage)
            self.candidate.endpoint.settle(self._permit, None)
            if self.first_s is not None:
                self.candidate.ttft.add(self.first_s)

    def fail(self, error: MeshError, prompt_tokens: int, *, counts: bool) -> None:
        """It ended with an error; `counts` when that says something about the candidate."""
        outcome = error.outcome
        if outcome is Outcome.FAULT and self.first_s is not None:
            outcome = Outcome.MIDSTREAM_FAULT
        if self._end(outcome, error.reason):
            self.error = error
            self._stream.cancel()
            self._charge(prompt_tokens)
            if counts:
                self.candidate.endpoint.settle(self._permit, error)
            self._permit.release()
            if error.outcome is Outcome.BACKPRESSURE and _PROVIDERS_OWN in error.metadata:
                for endpoint in self.candidate.account_peers:
                    endpoint.back_off(error.retry_after_s)

    def abandon(self, reason: str, prompt_tokens: int) -> None:
        """It is no longer wanted. That says nothing about the candidate."""
        if self._end(None, reason):
            self._stream.cancel()
            self._charge(prompt_tokens)
            self._permit.release()

    def _callers(self, error: NotFound) -> bool:
        """Whether what was not found is what the caller named: an adapter where the deployment names none."""
        return error.reason == "ADAPTER_NOT_FOUND" and not self.candidate.deployment.adapter

    def _not_loaded(self, error: NotFound) -> Unavailable:
        name = self.candidate.deployment.name
        message = f"deployment {name!r} does not serve what it is listed with: {error.message}"
        return Unavailable(message, reason="DEPLOYMENT_NOT_LOADED", metadata={"deployment": name})

    def _end(self, outcome: Outcome | None, reason: str) -> bool:
        if self.ended_s is not None:
            return False
        self.ended_s = self._clock.monotonic() - self._started
        self.outcome, self.reason = outcome, reason
        self.candidate.replica.moved(-1)
        return True

    def _charge(self, prompt_tokens: int) -> None:
        """What a cut answer used: the tokens that came, and the prompt by estimate once the node had read it."""
        if self._tokens:
            self.usage = generation_pb2.Usage(prompt_tokens=prompt_tokens, completion_tokens=self._tokens)
            self.cost = cost_of(self.candidate.deployment.price, self.usage)
