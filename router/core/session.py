"""One request, from its first attempt to its last message: releasing what the answer gives, escalating, disclosing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence

from headrace.common.v1 import generation_pb2
from headrace.router.v1 import router_pb2
from mesh.errors import DeadlineExceeded, MeshError, Outcome
from router.core.answer import Answer, Part
from router.core.attempt import ESCALATION, FAILOVER, FIRST, Attempt
from router.core.attempts import Attempts
from router.core.cascade_policy import CascadePolicy
from router.core.disclosing import disclose
from router.core.refusals import moves_on
from router.core.release_policy import Open, ReleasePolicy, release_policy_for
from router.core.routed_request import Opening, only_progress
from router.core.static_answer import static_answer

Message = router_pb2.GenerateResponse


class Session:
    """Sees one generation through. Iterate `stream` once; `close` may be called at any time and ends everything."""

    def __init__(self, attempts: Attempts, cascade_policy: CascadePolicy | None) -> None:
        self._attempts = attempts
        self._answer = Answer(attempts)
        self._cascade_policy = cascade_policy
        self._trace = attempts.request.trace
        self._model = attempts.request.route.model
        self._profile = attempts.request.profile
        # What is held to be judged, and then what is held because of how the answer is taken.
        self._judged: ReleasePolicy = Open()
        self._policy: ReleasePolicy = Open()
        self._escalated = False
        self._fallback = False
        # The answer's last word, once it is said.
        self._final: generation_pb2.Disclosure | None = None
        # What has changed since the caller was last told: how often others went on with the answer, and who gives it.
        self._untold = True
        self._told_splices = 0

    def disclosure(self) -> generation_pb2.Disclosure:
        """What was done so far."""
        return self._final or disclose(
            self._attempts.made,
            self._attempts.all_made(),
            escalated=self._escalated,
            spliced=self._answer.splices > 0,
            fallback=self._fallback,
        )

    def close(self) -> None:
        """End whatever is under way."""
        self._attempts.close()

    async def stream(self) -> AsyncGenerator[Message, None]:
        """The answer's messages. Raises MeshError; StreamCut once a message has gone out."""
        try:
            part = await self._begin()
        except MeshError as error:
            yield self._static(error)
            return
        while True:
            if part.begins:
                self._start(part.attempt)
            if only_progress(part.message):
                better = None
                if not self._answer.begun:
                    yield part.message
            else:
                judged = self._judged.push(part.message, self._trace.now())
                better = await self._escalate(part.attempt, judged) if judged else None
                if better is None:
                    for out in self._released(judged, part.attempt):
                        yield out
                    if part.message.HasField("summary"):
                        part.attempt.finish()
                        return
            try:
                part = better or await self._answer.read(part.attempt)
            except MeshError as error:
                yield self._static(error)
                return

    def _start(self, attempt: Attempt) -> None:
        """An attempt begins: what was held of those before it is let go of."""
        begun = self._answer.begun
        judges = self._cascade_policy is not None and self._cascade_policy.wants(attempt) and not begun
        self._judged = self._cascade_policy.release_policy() if self._cascade_policy and judges else Open()
        self._policy = release_policy_for(
            merged=self._profile.whole,
            structured=self._profile.structured and self._model.structured == "hold" and not begun,
            tools=self._profile.tools,
            commit=self._model.commit,
        )

    def _released(self, judged: Sequence[Message], attempt: Attempt) -> Iterator[Message]:
        """What may go to the caller now, dressed."""
        for message in judged:
            for out in self._policy.push(message, self._trace.now()):
                self._dress(out, attempt)
                yield out

    async def _begin(self) -> Part:
        if self._cascade_policy is not None:
            verdict = self._cascade_policy.before()
            self._trace.note("cascade.difficulty", verdict.why)
            if verdict.escalate:
                return await self._begin_higher()
        return await self._answer.open(Opening(FIRST))

    async def _begin_higher(self) -> Part:
        """Begin with the second member; with the first after all when nobody else answers."""
        self._escalated = True
        try:
            return await self._answer.open(Opening(FIRST, first_group=1, again=False, tells_progress=False))
        except MeshError as error:
            if (error.outcome is Outcome.CALLER_FAULT and not moves_on(error)) or isinstance(error, DeadlineExceeded):
                raise
            self._trace.note("cascade.failed", f"began with the first member: {error.reason}")
        self._escalated = False
        return await self._answer.open(Opening(FAILOVER))

    async def _escalate(self, attempt: Attempt, ready: Sequence[Message]) -> Part | None:
        """The next member's answer when this one will not do; None when it will, or when there is no other."""
        cascade_policy = self._cascade_policy
        if cascade_policy is None or not cascade_policy.wants(attempt):
            return None
        verdict = await cascade_policy.after(ready)
        self._trace.note("cascade.confidence", verdict.why)
        cascade_policy.done(attempt)
        if not verdict.escalate:
            return None
        try:
            better = await self._answer.open(
                Opening(ESCALATION, first_group=attempt.group + 1, again=False, tells_progress=False)
            )
        except MeshError as error:
            # A doubtful answer is better than none.
            self._trace.note("cascade.failed", f"kept the answer in hand: {error.reason}")
            return None
        self._leave(attempt, ready)
        self._escalated = self._untold = True
        return better

    def _leave(self, attempt: Attempt, ready: Sequence[Message]) -> None:
        """Leave an attempt's answer behind: it was made, and is paid for."""
        if ready[-1].HasField("summary"):
            self._attempts.succeeded(attempt)
        else:
            self._attempts.abandon(attempt, "ESCALATED")

    def _dress(self, message: Message, attempt: Attempt) -> None:
        """Put the disclosure on the messages that carry one, and note what goes out."""
        if message.HasField("summary"):
            self._attempts.succeeded(attempt)
            self._untold = True
            if self._cascade_policy is not None:
                self._cascade_policy.kept(attempt)
        if self._attempts.request.logprobs:
            for delta in message.deltas:
                del delta.logprobs[:]
        if self._untold or self._told_splices != self._answer.splices:
            message.disclosure.CopyFrom(self.disclosure())
            self._untold, self._told_splices = False, self._answer.splices
            if message.HasField("summary"):
                self._final = message.disclosure
        self._answer.give(message)

    def _static(self, error: MeshError) -> Message:
        """The answer of last resort, if the model has one that fits and nothing was said yet; or raises the error."""
        message = static_answer(self._model, self._profile)
        if message is None or self._answer.begun or error.outcome is Outcome.CALLER_FAULT:
            raise error
        self._trace.note("fallback", error.reason)
        self._fallback = True
        message.disclosure.CopyFrom(self.disclosure())
        return message
