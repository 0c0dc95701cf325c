"""The stream of Anthropic's Messages API, read into deltas."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.common.v1 import generation_pb2 as pb
from inference.core.providers import failures
from inference.core.providers.chunks import as_json, count, decode
from inference.core.providers.finishing import Choices
from inference.core.providers.halves import Halves, whole
from inference.core.providers.prefill import CutSpace
from inference.core.providers.sse import SseEvent

_FINISH: Final = {
    "end_turn": pb.FINISH_REASON_STOP,
    "stop_sequence": pb.FINISH_REASON_STOP,
    "max_tokens": pb.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": pb.FINISH_REASON_LENGTH,
    "tool_use": pb.FINISH_REASON_TOOL_CALLS,
    "refusal": pb.FINISH_REASON_CONTENT_FILTER,
}
_TOOL_USE: Final = "tool_use"


class _Message(msgspec.Struct):
    usage: dict[str, Any] | None = None


class _Block(msgspec.Struct):
    type: str
    id: str = ""
    name: str = ""
    text: str = ""
    input: dict[str, Any] | None = None


class _StopDetails(msgspec.Struct):
    explanation: str | None = None


class _Delta(msgspec.Struct):
    # Of content_block_delta.
    type: str = ""
    text: str = ""
    partial_json: str = ""
    # Of message_delta.
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _Event(msgspec.Struct):
    type: str
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Event, strict=False)


class AnthropicReader:
    """See inference.core.providers.dialect.Reader. Kinds of events and blocks that are not known are read over.

    `cut` is the white space that was cut off the text which the answer goes on from.
    """

    def __init__(self, cut: str = "") -> None:
        self._seam = CutSpace(cut)
        self._choices = Choices(1)
        self._usage: dict[str, Any] = {}
        self._halves: Halves[int] = Halves()
        self.done = False
        # By content block: the call's place among the calls, and whether its arguments have begun.
        self._calls: dict[int, int] = {}
        self._begun: set[int] = set()

    @property
    def progress(self) -> int:
        """See Reader."""
        return self._choices.progress

    @property
    def whole(self) -> bool:
        """See Reader."""
        return self.done

    def take(self, event: SseEvent) -> list[pb.ChoiceDelta]:
        """See Reader."""
        decoded = decode(_decoder, event.data, "an event that is not a message's")
        if decoded.type == "error" or event.name == "error":
            raise failures.of_body(failures.decode_error(event.data.encode(errors="replace")))
        gained = self._gained(decoded)
        return [gained] if gained is not None else []

    def end(self) -> tuple[list[pb.ChoiceDelta], pb.GenerationSummary]:
        """See Reader."""
        if not self.done:
            raise failures.ended_early("message_stop")
        lost = [self._lost(index, text) for index, text in self._halves.lost()]
        return lost + self._choices.end(), pb.GenerationSummary(usage=_to_usage(self._usage))

    def cut(self) -> tuple[list[pb.ChoiceDelta], pb.GenerationSummary]:
        """See Reader."""
        return self._choices.cut(), pb.GenerationSummary(usage=_to_usage(self._usage))

    def _gained(self, event: _Event) -> pb.ChoiceDelta | None:
        if event.type == "content_block_start" and event.content_block is not None:
            return self._start(event.index, event.content_block)
        if event.type == "content_block_delta" and event.delta is not None:
            return self._more(event.index, event.delta)
        if event.type == "content_block_stop":
            return self._stop(event.index)
        if event.type == "message_delta" and event.delta is not None:
            return self._ending(event.delta, event.usage)
        if event.type == "message_start" and event.message is not None:
            self._count(event.message.usage)
        elif event.type == "message_stop":
            self.done = True
        return None

    def _start(self, index: int, block: _Block) -> pb.ChoiceDelta | None:
        self._choices.gained()
        if block.type != _TOOL_USE:
            return self._text(index, block.text)
        self._calls[index] = place = len(self._calls)
        arguments = ""
        if block.input:
            # Never seen so far: arguments that come whole.
            self._begun.add(index)
            arguments = as_json(block.input)
        self._choices.called(0)
        call = pb.ToolCallDelta(index=place, id=whole(block.id), name=whole(block.name), arguments_json=arguments)
        return pb.ChoiceDelta(tool_calls=[call])

    def _more(self, index: int, delta: _Delta) -> pb.ChoiceDelta | None:
        self._choices.gained()
        if delta.type == "text_delta":
            return self._text(index, delta.text)
        if delta.type == "input_json_delta" and delta.partial_json:
            return self._arguments(index, delta.partial_json)
        return None

    def _stop(self, index: int) -> pb.ChoiceDelta | None:
        # A call without arguments sends none, and its caller expects an object.
        return self._arguments(index, "{}") if index in self._calls and index not in self._begun else None

    def _arguments(self, index: int, text: str) -> pb.ChoiceDelta:
        if index not in self._calls:
            raise failures.Malformed("arguments of a call that was not begun")
        self._begun.add(index)
        text = self._halves.join(index, text)
        return pb.ChoiceDelta(tool_calls=[pb.ToolCallDelta(index=self._calls[index], arguments_json=text)])

    def _text(self, index: int, text: str) -> pb.ChoiceDelta | None:
        gained = self._seam.after(self._halves.join(index, text))
        return pb.ChoiceDelta(text=gained) if gained else None

    def _lost(self, index: int, text: str) -> pb.ChoiceDelta:
        return self._arguments(index, text) if index in self._calls else pb.ChoiceDelta(text=text)

    def _ending(self, delta: _Delta, usage: dict[str, Any] | None) -> pb.ChoiceDelta | None:
        self._count(usage)
        if delta.stop_reason is None:
            return None
        if delta.stop_reason not in _FINISH:
            raise failures.Malformed("a stop reason that means nothing here")
        self._choices.finish(0, _FINISH[delta.stop_reason])
        if delta.stop_reason != "refusal":
            return None
        details = delta.stop_details
        said = (details.explanation if details else None) or "The provider refused to answer."
        return pb.ChoiceDelta(refusal=whole(said))

    def _count(self, usage: dict[str, Any] | None) -> None:
        """Take over the figures; they are running totals, and each event gives some of them."""
        self._usage |= {name: value for name, value in (usage or {}).items() if value is not None}


def _to_usage(usage: dict[str, Any]) -> pb.Usage:
    def tokens(name: str) -> int:
        return count(usage.get(name))

    cached, details = tokens("cache_read_input_tokens"), usage.get("output_tokens_details")
    return pb.Usage(
        # Anthropic counts what came from the cache, and what went into it, apart.
        prompt_tokens=count(tokens("input_tokens") + cached + tokens("cache_creation_input_tokens")),
        completion_tokens=tokens("output_tokens"),
        cached_tokens=cached,
        reasoning_tokens=count(details.get("thinking_tokens")) if isinstance(details, dict) else 0,
    )
