"""Many messages of an answer as one: what each choice gained, put together."""

from __future__ import annotations

from array import array
from typing import Final

from headrace.common.v1 import generation_pb2
from headrace.router.v1 import router_pb2

Message = router_pb2.GenerateResponse
# What a piece takes besides what it carries.
_PIECE_BYTES: Final = 8
_TOKEN_BYTES: Final = 4


class _Call:
    """One tool call, in pieces."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class _Choice:
    """What one choice has gained."""

    __slots__ = ("calls", "end", "ids", "logprobs", "refusal", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.ids = array("i")
        self.logprobs: list[generation_pb2.TokenLogprob] = []
        self.calls: dict[int, _Call] = {}
        # The delta with the finish reason, or with figures of the whole choice.
        self.end: generation_pb2.ChoiceDelta | None = None

    def add(self, delta: generation_pb2.ChoiceDelta) -> int:
        """Take a piece in; about how many bytes it holds on to."""
        size = _PIECE_BYTES + len(delta.token_ids) * _TOKEN_BYTES
        self.ids.extend(delta.token_ids)
        if delta.text:
            self.text.append(delta.text)
            size += len(delta.text)
        if delta.refusal:
            self.refusal.append(delta.refusal)
            size += len(delta.refusal)
        if delta.logprobs:
            self.logprobs.extend(delta.logprobs)
            size += delta.ByteSize()
        for piece in delta.tool_calls:
            call = self.calls.setdefault(piece.index, _Call())
            call.id, call.name = call.id or piece.id, call.name or piece.name
            call.arguments.append(piece.arguments_json)
            size += _PIECE_BYTES + len(piece.id) + len(piece.name) + len(piece.arguments_json)
        if delta.finish_reason or delta.HasField("confidence"):
            self.end = delta
        return size

    def write(self, delta: generation_pb2.ChoiceDelta) -> None:
        """Put all of it into one delta."""
        delta.text, delta.refusal = "".join(self.text), "".join(self.refusal)
        delta.token_ids.extend(self.ids)
        delta.logprobs.extend(self.logprobs)
        for index, call in sorted(self.calls.items()):
            delta.tool_calls.add(index=index, id=call.id, name=call.name, arguments_json="".join(call.arguments))
        if self.end is not None:
            delta.finish_reason = self.end.finish_reason
            if self.end.HasField("confidence"):
                delta.confidence.CopyFrom(self.end.confidence)


class Merged:
    """Messages that were put together. `size` is about how many bytes they hold on to."""

    __slots__ = ("_choices", "_summary", "size")

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._summary: generation_pb2.GenerationSummary | None = None
        self.size = 0

    def add(self, message: Message) -> None:
        """Take one message in."""
        for delta in message.deltas:
            self.size += self._choices.setdefault(delta.index, _Choice()).add(delta)
        if message.HasField("summary"):
            self._summary = message.summary

    def message(self) -> Message:
        """All of it as one message: a delta for each choice, in their order, and the summary if it came."""
        message = Message()
        for index, choice in sorted(self._choices.items()):
            choice.write(message.deltas.add(index=index))
        if self._summary is not None:
            message.summary.CopyFrom(self._summary)
        return message
