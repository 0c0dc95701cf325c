"""The stream of an OpenAI-compatible server, read into deltas."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import msgspec

from headrace.common.v1 import generation_pb2 as pb
from inference.core.providers import failures
from inference.core.providers.call_ids import FreshIds
from inference.core.providers.chunks import count, decode
from inference.core.providers.finishing import Choices
from inference.core.providers.halves import Halves, whole
from inference.core.providers.openai_calls import Calls, Function, ToolCall
from inference.core.providers.prefill import Echo
from inference.core.providers.sse import SseEvent

_DONE: Final = "[DONE]"
# In lower case. What servers besides OpenAI's say for it stands behind its word.
_FINISH: Final = {
    word: reason
    for reason, words in (
        (pb.FINISH_REASON_STOP, ("stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete")),
        (pb.FINISH_REASON_LENGTH, ("length", "max_tokens", "model_length")),
        (pb.FINISH_REASON_TOOL_CALLS, ("tool_calls", "function_call", "tool_use")),
        (pb.FINISH_REASON_CONTENT_FILTER, ("content_filter", "content_policy_violation", "safety", "sensitive")),
    )
    for word in words
}


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    # The older form of a call.
    function_call: Function | None = None
    # The model's thoughts, as DeepSeek, vLLM and OpenRouter give them: a sign of work, and not part of the answer.
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Alternative(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class _TokenLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_TokenLogprob] | None = None
    # The older form, of /completions.
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    # Of /completions.
    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Chunk, strict=False)


class OpenAIReader:
    """See inference.core.providers.dialect.Reader.

    `counted`: the server was asked for the usage. `begun` is the text that the one choice goes on from.
    """

    def __init__(self, expected: int, ids: FreshIds, *, counted: bool = True, begun: str = "") -> None:
        self._echo = Echo(begun)
        self._choices = Choices(expected)
        self._calls = [Calls(partial(ids.make, choice)) for choice in range(expected)]
        self._halves: Halves[tuple[int, str]] = Halves()
        self._usage = pb.Usage()
        # Nothing is missing once every choice has its end and the usage is there.
        self._counted = not counted
        self.done = False

    @property
    def progress(self) -> int:
        """See Reader."""
        return self._choices.progress

    @property
    def whole(self) -> bool:
        """See Reader."""
        return self._counted and self._choices.all_finished

    def take(self, event: SseEvent) -> list[pb.ChoiceDelta]:
        """See Reader."""
        if event.data.strip() == _DONE:
            self.done = True
            return []
        chunk = decode(_decoder, event.data, "a chunk that is not a chat completion's")
        if chunk.error or event.name == "error":
            raise failures.of_body(failures.decode_error(event.data.encode(errors="replace")))
        if isinstance(chunk.usage, dict):
            self._usage = _usage(chunk.usage)
            self._counted = True
        return [delta for choice in chunk.choices or () if (delta := self._delta(choice)) is not None]

    def end(self) -> tuple[list[pb.ChoiceDelta], pb.GenerationSummary]:
        """See Reader."""
        if not self.done and not self.whole:
            raise failures.ended_early(_DONE)
        return self._missing() + self._choices.end(), pb.GenerationSummary(usage=self._usage)

    def cut(self) -> tuple[list[pb.ChoiceDelta], pb.GenerationSummary]:
        """See Reader."""
        return self._choices.cut(), pb.GenerationSummary(usage=self._usage)

    def _missing(self) -> list[pb.ChoiceDelta]:
        missing = [
            pb.ChoiceDelta(index=index, tool_calls=pieces)
            for index, calls in enumerate(self._calls)
            if not self._choices.cut_short(index) and (pieces := calls.end())
        ]
        if held := self._echo.end():
            missing.append(pb.ChoiceDelta(text=held))
        return missing + [_of_field(key, text) for key, text in self._halves.lost()]

    def _delta(self, choice: _Choice) -> pb.ChoiceDelta | None:
        delta = choice.delta or _Delta(content=choice.text)
        index = self._choices.checked(choice.index)
        gained = pb.ChoiceDelta(
            index=index,
            text=self._echo.after(self._halves.join((index, "text"), delta.content or "")),
            refusal=self._halves.join((index, "refusal"), delta.refusal or ""),
            tool_calls=self._called(index, delta),
            logprobs=_logprobs(choice.logprobs) if choice.logprobs else (),
        )
        says = bool(gained.text or gained.refusal or gained.tool_calls or gained.logprobs)
        if says or delta.reasoning_content or delta.reasoning:
            self._choices.gained()
        if choice.finish_reason:
            self._choices.finish(index, _finish(choice.finish_reason))
        return gained if says else None

    def _called(self, index: int, delta: _Delta) -> list[pb.ToolCallDelta]:
        pieces = list(delta.tool_calls or ())
        if delta.function_call is not None:
            pieces.append(ToolCall(index=0, function=delta.function_call))
        if pieces:
            self._choices.called(index)
        return [self._calls[index].take(piece) for piece in pieces]


def _finish(word: str) -> pb.FinishReason.ValueType:
    if (reason := _FINISH.get(word.lower())) is None:
        raise failures.Malformed("a finish reason that means nothing")
    return reason


def _of_field(key: tuple[int, str], text: str) -> pb.ChoiceDelta:
    index, field = key
    return pb.ChoiceDelta(index=index, text=text) if field == "text" else pb.ChoiceDelta(index=index, refusal=text)


def _logprobs(logprobs: _Logprobs) -> list[pb.TokenLogprob]:
    if logprobs.content:
        return [_token(entry.token, entry.logprob, entry.bytes, entry.top_logprobs or []) for entry in logprobs.content]
    tops = logprobs.top_logprobs or [None] * len(logprobs.tokens or ())
    return [
        _token(token, logprob, None, [_Alternative(text, value) for text, value in (top or {}).items()])
        # The first token of an echoed prompt has none.
        for token, logprob, top in zip(logprobs.tokens or (), logprobs.token_logprobs or (), tops, strict=False)
        if logprob is not None
    ]


def _token(text: str, logprob: float, raw: list[int] | None, top: list[_Alternative]) -> pb.TokenLogprob:
    entry = pb.TokenLogprob(token_id=-1, text=whole(text), raw=_raw(text, raw), logprob=logprob)
    for other in top:
        entry.top.add(token_id=-1, text=whole(other.token), raw=_raw(other.token, other.bytes), logprob=other.logprob)
    return entry


def _raw(text: str, raw: list[int] | None) -> bytes:
    if raw is None:
        return whole(text).encode()
    try:
        return bytes(raw)
    except ValueError as error:
        raise failures.Malformed("bytes that are none") from error


def _usage(usage: dict[str, Any]) -> pb.Usage:
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return pb.Usage(
        prompt_tokens=count(usage.get("prompt_tokens")),
        completion_tokens=count(usage.get("completion_tokens")),
        cached_tokens=count(prompt.get("cached_tokens")) if isinstance(prompt, dict) else 0,
        reasoning_tokens=count(completion.get("reasoning_tokens")) if isinstance(completion, dict) else 0,
    )
