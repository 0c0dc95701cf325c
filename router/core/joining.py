"""What a deployment says that goes on from another one's text, made a part of one answer."""

from __future__ import annotations

from headrace.common.v1 import generation_pb2
from headrace.router.v1 import router_pb2
from router.core.attempt import Attempt
from router.core.request_profile import question_of
from router.core.routed_request import RoutedRequest
from router.core.seam import Seam

Message = router_pb2.GenerateResponse


class Joined:
    """The messages of one continuation. Their tokens are another model's, and mean nothing behind those before."""

    def __init__(self, before: tuple[Attempt, ...], seam: Seam) -> None:
        self._before = before
        self._seam = seam

    @classmethod
    def after(cls, earlier: Joined | None, attempt: Attempt, text: str, request: RoutedRequest) -> Joined:
        """What continues an attempt's text, and that of those which the attempt itself continued."""
        before = earlier._before if earlier is not None else ()
        return cls((*before, attempt), Seam(text, question_of(request.message.generation)))

    def join(self, message: Message) -> Message:
        """The message as it goes on with the answer; without deltas while its beginning is held."""
        joined = Message()
        for delta in message.deltas:
            self._delta(delta, joined)
        if message.HasField("summary"):
            joined.summary.CopyFrom(message.summary)
            if self._seam.open and (text := self._seam.end()):
                joined.deltas.add(index=0, text=text)
            self._count(joined.summary.usage)
        return joined

    def _delta(self, delta: generation_pb2.ChoiceDelta, joined: Message) -> None:
        held = self._seam.open
        text = self._seam.push(delta.text)
        more = bool(delta.tool_calls or delta.refusal or delta.finish_reason)
        if more:
            text += self._seam.end()
        if not text and not more:
            return
        out = joined.deltas.add()
        out.CopyFrom(delta)
        out.text = text
        del out.token_ids[:]
        if held:
            # They are of text that was held or left out as well.
            del out.logprobs[:]

    def _count(self, usage: generation_pb2.Usage) -> None:
        """Both deployments read the prompt, and each wrote its part."""
        for attempt in self._before:
            if attempt.usage is not None:
                usage.prompt_tokens += attempt.usage.prompt_tokens
                usage.completion_tokens += attempt.usage.completion_tokens
