"""One request, from its first attempt to its last message: relaying, holding back, resuming, escalating, disclosing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from headrace.common.v1 import generation_pb2
from headrace.router.v1 import router_pb2
from mesh.errors import DeadlineExceeded, MeshError, Outcome, StreamCut
from router.core.attempt import Attempt
from router.core.attempts import ESCALATION, FAILOVER, FIRST, RESUME, Attempts, Opened, resumes
from router.core.cascade_policy import CascadePolicy
from router.core.decision_trace import DecisionTrace
from router.core.disclosing import disclose
from router.core.release_policy import ReleasePolicy, release_policy_for
from router.core.resume_buffer import ResumeBuffer

Message = router_pb2.GenerateResponse


class Session:
    """Sees one generation through. Iterate `stream` once; `close` may be called at any time and ends everything."""

    def __init__(self, attempts: Attempts, trace: DecisionTrace, cascade_policy: CascadePolicy | None) -> None:
        self._attempts = attempts
        self._trace = trace
        self._cascade_policy = cascade_policy
        self._model = attempts.selection.route.model
        self._profile = attempts.selection.profile
        self._resume_buffer = ResumeBuffer(self._profile.choices)
        self._escalated = False
        self._spliced = False
        self._fallback = False
        # The answer's last word, once it is said.
        self._final: generation_pb2.Disclosure | None = None
        # The caller has not been told of the newest disclosure yet.
        self._untold = True

    def disclosure(self) -> generation_pb2.Disclosure:
        """What was done so far."""
        return self._final or disclose(
            self._attempts.attempts,
            self._attempts.side_attempts,
            escalated=self._escalated,
            spliced=self._spliced,
            fallback=self._fallback,
        )

    def close(self) -> None:
        """End whatever is under way."""
        self._attempts.close()

    async def stream(self) -> AsyncIterator[Message]:
        """The answer's messages. Raises MeshError; StreamCut once a message has gone out."""
        try:
            attempt, message = await self._begin()
        except MeshError as error:
            yield self._static(error)
            return
        release_policy = self._release_policy(attempt)
        while True:
            try:
                ready = release_policy.push(message, self._trace.now())
                if ready and self._cascade_policy is not None and self._cascade_policy.wants(attempt):
                    better = await self._escalate(attempt, ready, self._cascade_policy)
                    if better is not None:
                        attempt, message = better
                        release_policy = self._release_policy(attempt)
                        continue
                for out in ready:
                    self._dress(out, attempt)
                    yield out
                if message.HasField("summary"):
                    attempt.finish()
                    return
                message = await self._next(attempt)
                continue
            except MeshError as error:
                if attempt.ended_s is not None:
                    raise
                failure = error
            try:
                attempt, message = await self._recover(attempt, failure)
            except MeshError as error:
                yield self._static(error)
                return
            release_policy = self._release_policy(attempt)

    async def _begin(self) -> Opened:
        if self._cascade_policy is not None:
            verdict = self._cascade_policy.before()
            self._trace.note("cascade.difficulty", verdict.why)
            if verdict.escalate:
                return await self._begin_higher()
        return await self._attempts.open(FIRST)

    async def _begin_higher(self) -> Opened:
        """Begin with the second member; with the first after all when nobody else answers."""
        selection = self._attempts.selection
        selection.group, selection.again = 1, False
        self._escalated = True
        try:
            return await self._attempts.open(FIRST)
        except MeshError as error:
            if error.outcome is Outcome.CALLER_FAULT or isinstance(error, DeadlineExceeded):
                raise
            self._trace.note("cascade.failed", f"began with the first member: {error.reason}")
        finally:
            selection.again = True
        selection.group = 0
        self._escalated = False
        return await self._attempts.open(FAILOVER)

    async def _next(self, attempt: Attempt) -> Message:
        message = await attempt.read()
        if self._spliced and self._resume_buffer.finished:
            self._resume_buffer.without_finished(message)
        return message

    async def _recover(self, attempt: Attempt, error: MeshError) -> Opened:
        """Another attempt in the place of one that failed. Raises the error to end with."""
        self._attempts.failed(attempt, error)
        if not self._resume_buffer:
            return await self._attempts.open(FAILOVER)
        why = self._why_not_resume()
        if why:
            self._trace.note("resume.impossible", why)
            raise self._cut(error)
        self._attempts.selection.only = resumes(attempt)
        self._attempts.selection.group = 0
        try:
            opened = await self._attempts.open(RESUME, self._resume_buffer.emitted())
        except DeadlineExceeded:
            raise
        except MeshError as last:
            raise self._cut(error) from last
        self._spliced = self._untold = True
        if self._resume_buffer.finished:
            self._resume_buffer.without_finished(opened[1])
        return opened

    def _why_not_resume(self) -> str:
        if not self._model.resume:
            return "the model's entry switches it off"
        if self._profile.structured:
            return "the answer is bound to a schema"
        return "" if self._resume_buffer.resumable else "the node gave no token ids"

    async def _escalate(
        self, attempt: Attempt, ready: Sequence[Message], cascade_policy: CascadePolicy
    ) -> Opened | None:
        """The next member's attempt when this answer will not do; None when it will, or when there is no other."""
        verdict = await cascade_policy.after(ready)
        self._trace.note("cascade.confidence", verdict.why)
        cascade_policy.done(attempt)
        if not verdict.escalate:
            return None
        selection = self._attempts.selection
        before, selection.group, selection.again = selection.group, attempt.group + 1, False
        try:
            better = await self._attempts.open(ESCALATION)
        except MeshError as error:
            # A doubtful answer is better than none.
            self._trace.note("cascade.failed", f"kept the answer in hand: {error.reason}")
            selection.group = before
            return None
        finally:
            selection.again = True
        self._leave(attempt, ready)
        self._escalated = self._untold = True
        return better

    def _leave(self, attempt: Attempt, ready: Sequence[Message]) -> None:
        """Leave an attempt's answer behind: it was made, and is paid for."""
        if ready[-1].HasField("summary"):
            self._attempts.succeeded(attempt, ready[-1].summary)
        else:
            self._attempts.abandon(attempt, "ESCALATED")

    def _dress(self, message: Message, attempt: Attempt) -> None:
        """Put the disclosure on the messages that carry one, and note what goes out."""
        if message.HasField("summary"):
            if not self._resume_buffer.would_complete(message):
                raise StreamCut("the stream ended without every finish reason", reason="STREAM_CUT")
            if self._spliced:
                usage = message.summary.usage
                spliced = self._resume_buffer.tokens + sum(len(delta.token_ids) for delta in message.deltas)
                usage.completion_tokens = max(usage.completion_tokens, spliced)
            self._attempts.succeeded(attempt, message.summary)
            self._untold = True
            if self._cascade_policy is not None:
                self._cascade_policy.kept(attempt)
        if self._attempts.selection.logprobs:
            for delta in message.deltas:
                del delta.logprobs[:]
        if self._untold:
            message.disclosure.CopyFrom(self.disclosure())
            self._untold = False
            if message.HasField("summary"):
                self._final = message.disclosure
        self._resume_buffer.add(message)

    def _release_policy(self, attempt: Attempt) -> ReleasePolicy:
        if self._cascade_policy is not None and self._cascade_policy.wants(attempt) and not self._resume_buffer:
            return self._cascade_policy.release_policy()
        hold = self._profile.structured and self._model.structured == "hold" and not self._resume_buffer
        return release_policy_for(structured=hold, tools=self._profile.tools, commit=self._model.commit)

    def _static(self, error: MeshError) -> Message:
        """The answer of last resort, where the model has one and nothing was said yet; else raises the error."""
        if self._model.fallback is None or self._resume_buffer or error.outcome is Outcome.CALLER_FAULT:
            raise error
        self._trace.note("fallback", error.reason)
        self._fallback = True
        message = Message()
        for index in range(self._profile.choices):
            message.deltas.add(index=index, text=self._model.fallback, finish_reason=generation_pb2.FINISH_REASON_STOP)
        message.summary.SetInParent()
        message.summary.model = self._model.name
        message.disclosure.CopyFrom(self.disclosure())
        return message

    def _cut(self, error: MeshError) -> StreamCut:
        return StreamCut(
            f"the answer was cut and could not be resumed: {error.message}",
            reason="STREAM_CUT",
            metadata={"cause": error.reason},
        )
