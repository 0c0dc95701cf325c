"""One answer, whoever gives it: what fails is begun anew, or continued where the caller has seen a part of it."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from headrace.router.v1 import router_pb2
from mesh.errors import DeadlineExceeded, MeshError, StreamCut
from router.core.attempt import FAILOVER, FIRST, RESUME, Attempt
from router.core.attempts import Attempts
from router.core.catalog import resuming_of
from router.core.joining import Joined
from router.core.resume_buffer import ResumeBuffer
from router.core.resuming import TEXT_IS_OFF, by_text, by_tokens
from router.core.routed_request import Opened, Opening

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
        # How often an attempt continued what another had begun; and how the last one did, if it went on from text.
        self.splices = 0
        self._joins: Joined | None = None

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
        if self._joins is not None:
            message = self._joins.join(message)
        for delta in message.deltas:
            if delta.finish_reason:
                self._finished.add(delta.index)
        if message.HasField("summary"):
            if len(self._finished) < self._profile.choices:
                error = StreamCut("the stream ended without every finish reason", reason="STREAM_CUT")
                return await self._replace(attempt, error)
            if resumption is not None and self._joins is None:
                usage = message.summary.usage
                usage.completion_tokens = max(usage.completion_tokens, resumption.tokens + attempt.token_ids)
        elif self._joins is not None and not message.deltas:
            # Its beginning is held until it is known how it joins.
            part = await self.read(attempt)
            return part._replace(begins=part.begins or begins)
        return Part(attempt, message, begins)

    async def _replace(self, attempt: Attempt, error: MeshError) -> Part:
        """Another attempt in the place of one that failed."""
        self._attempts.failed(attempt, error)
        if not self.begun:
            return await self.open(dataclasses.replace(self._opening, cause=FAILOVER, again=True, tells_progress=True))
        try:
            part = await self._resume(attempt)
        except DeadlineExceeded:
            raise
        except MeshError as last:
            # Whoever cannot go on with it hides nothing of why that was needed.
            raise _cut(error) from last
        self.splices += 1
        return part

    async def _resume(self, attempt: Attempt) -> Part:
        """Another attempt that goes on where this one stopped. Raises the error for which there is none."""
        resumption, why = by_tokens(self._attempts.request, self._given, attempt)
        by_words, why_not = by_text(self._attempts.request, self._given)
        if resumption is None and by_words is None:
            self._trace.note("resume.impossible", why if why_not in (why, TEXT_IS_OFF) else f"{why}; {why_not}")
            raise StreamCut(why)
        if resumption is not None:
            try:
                opening = Opening(RESUME, again=by_words is None, resumption=resumption, tells_progress=False)
                return await self.open(opening)
            except MeshError as error:
                if by_words is None or isinstance(error, DeadlineExceeded):
                    raise
                self._trace.note("resume.by_text", f"nobody goes on from the tokens: {error.reason}")
        before = self._joins
        self._joins = Joined.after(before, attempt, self._given.text(), self._attempts.request)
        try:
            return await self.open(Opening(RESUME, resumption=by_words, tells_progress=False))
        except MeshError:
            self._joins = before
            raise


def _cut(error: MeshError) -> StreamCut:
    return StreamCut(
        f"the answer was cut and could not be resumed: {error.message}",
        reason="STREAM_CUT",
        metadata={"cause": error.reason},
    )
