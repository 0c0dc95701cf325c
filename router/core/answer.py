"""One answer, whoever gives it: what fails is begun anew, or continued where the caller has seen a part of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from headrace.router.v1 import router_pb2
from mesh.errors import DeadlineExceeded, MeshError, StreamCut
from router.core.attempt import FAILOVER, FIRST, RESUME, Attempt
from router.core.attempts import Attempts
from router.core.catalog import resuming_of
from router.core.fleet import Candidate
from router.core.resume_buffer import ResumeBuffer
from router.core.routed_request import Opened, Opening, Resumption

Message = router_pb2.GenerateResponse


class Part(NamedTuple):
    """One message of the answer, and the attempt that it came from."""

    attempt: Attempt
    message: Message
    # It is the attempt's first: whatever of earlier ones was not given to the caller is void.
    begins: bool


class Answer:
    """Opened once, or again where another attempt's answer is wanted instead; then read until its summary."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self._trace = attempts.request.trace
        self._profile = attempts.request.profile
        self._opening = Opening(FIRST)
        resumes = resuming_of(attempts.request.route.model) != "off" and not self._profile.structured
        self._given = ResumeBuffer(self._profile.choices, keeps=resumes)
        # Choices that have their finish reason, in what was given and in this attempt's messages.
        self._finished: set[int] = set()
        # Attempts that continued what another one had begun.
        self.splices = 0

    @property
    def begun(self) -> bool:
        """Whether the caller has been given any of it."""
        return self._given.started

    def give(self, message: Message) -> None:
        """A message goes out to the caller: from here on the answer can only be continued."""
        self._given.add(message)

    async def open(self, opening: Opening) -> Part:
        """The first message of an attempt. Raises the error to end the request with; a caller may then open another."""
        opened = await self._attempts.open(opening)
        self._opening = opening
        self._finished = set(self._given.finished)
        return await self._part(opened, begins=True)

    async def read(self, attempt: Attempt) -> Part:
        """The next message, of this attempt or of one in its place. Raises the error to end the request with."""
        try:
            message = await attempt.read()
        except MeshError as error:
            return await self._replace(attempt, error)
        return await self._part(Opened(attempt, message), begins=False)

    async def _part(self, opened: Opened, *, begins: bool) -> Part:
        attempt, message = opened
        resumption = self._opening.resumption
        if resumption is not None and self._given.finished:
            self._given.without_finished(message)
        self._finished.update(delta.index for delta in message.deltas if delta.finish_reason)
        if message.HasField("summary"):
            if len(self._finished) < self._profile.choices:
                error = StreamCut("the stream ended without every finish reason", reason="STREAM_CUT")
                return await self._replace(attempt, error)
            if resumption is not None:
                usage = message.summary.usage
                usage.completion_tokens = max(usage.completion_tokens, resumption.tokens + attempt.token_ids)
        return Part(attempt, message, begins)

    async def _replace(self, attempt: Attempt, error: MeshError) -> Part:
        """Another attempt in the place of one that failed."""
        self._attempts.failed(attempt, error)
        if not self.begun:
            return await self.open(dataclasses.replace(self._opening, cause=FAILOVER, again=True, tells_progress=True))
        why = self._why_not_resume()
        if why:
            self._trace.note("resume.impossible", why)
            raise _cut(error)
        resumption = Resumption(self._given.emitted(), self._given.tokens, continues(attempt))
        try:
            part = await self.open(Opening(RESUME, resumption=resumption, tells_progress=False))
        except DeadlineExceeded:
            raise
        except MeshError as last:
            raise _cut(error) from last
        self.splices += 1
        return part

    def _why_not_resume(self) -> str:
        if resuming_of(self._attempts.request.route.model) == "off":
            return "the model's entry switches it off"
        if self._profile.structured:
            return "the answer is bound to a schema"
        if not self._given.keeps:
            return "the answer is too large to be remembered"
        return "" if self._given.resumable else "the node gave no token ids"


def continues(attempt: Attempt) -> Callable[[Candidate], bool]:
    """Which candidates can go on where the attempt stopped: equal weights and tokenizer, and able to resume."""
    was, revision = attempt.candidate.deployment, attempt.revision

    def can(candidate: Candidate) -> bool:
        deployment = candidate.deployment
        # Where no revision is known, only the deployment's own replicas are taken to be equal.
        equal = candidate.revision == revision if revision else deployment.name == was.name
        same = (deployment.model, deployment.adapter) == (was.model, was.adapter)
        return equal and same and candidate.can_resume

    return can


def _cut(error: MeshError) -> StreamCut:
    return StreamCut(
        f"the answer was cut and could not be resumed: {error.message}",
        reason="STREAM_CUT",
        metadata={"cause": error.reason},
    )
