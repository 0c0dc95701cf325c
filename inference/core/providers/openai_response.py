"""The stream of an OpenAI-compatible server, read into deltas."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.common.v1 import generation_pb2 as pb
from inference.core.providers import failures
from inference.core.providers.finishing import Choices
from inference.core.providers.sse import SseEvent

_DONE: Final = "[DONE]"
_FINISH: Final = {
    "stop": pb.FINISH_REASON_STOP,
    # Together's word for the model's own end.
    "eos": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
    "tool_calls": pb.FINISH_REASON_TOOL_CALLS,
    "function_call": pb.FINISH_REASON_TOOL_CALLS,
    "content_filter": pb.FINISH_REASON_CONTENT_FILTER,
}


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    # Some servers leave it out where there is but one call.
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
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


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Chunk)


class OpenAIReader:
    """See inference.core.providers.dialect.Reader."""

    def __init__(self, expected: int) -> None:
        self._choices = Choices(expected)
        self._usage = pb.Usage()
        self.done = False

    @property
    def progress(self) -> int:
        """See Reader."""
        return self._choices.progress

    def take(self, event: SseEvent) -> list[pb.ChoiceDelta]:
        """See Reader."""
        if event.data.strip() == _DONE:
            self.done = True
            return []
        try:
            chunk = _decoder.decode(event.data)
        except msgspec.DecodeError as error:
            raise failures.malformed("a chunk that is not a chat completion's") from error
        if chunk.error or event.name == "error":
            raise failures.of_body(failures.decode_error(event.data.encode()))
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage)
        return [delta for choice in chunk.choices or () if (delta := self._delta(choice)) is not None]

    def end(self) -> tuple[list[pb.ChoiceDelta], pb.GenerationSummary]:
        """See Reader."""
        if not self.done:
            raise failures.ended_early(_DONE)
        return self._choices.end(), pb.GenerationSummary(usage=self._usage)

    def _delta(self, choice: _Choice) -> pb.ChoiceDelta | None:
        delta = choice.delta or _Delta(content=choice.text)
        gained = pb.ChoiceDelta(
            index=self._choices.checked(choice.index),
            text=delta.content or "",
            refusal=delta.refusal or "",
            tool_calls=[_tool_call(call, place) for place, call in enumerate(delta.tool_calls or ())],
            logprobs=_logprobs(choice.logprobs) if choice.logprobs else (),
        )
        says = bool(gained.text or gained.refusal or gained.tool_calls or gained.logprobs)
        if says or delta.reasoning_content or delta.reasoning:
            self._choices.gained()
        if choice.finish_reason:
            if choice.finish_reason not in _FINISH:
                raise failures.malformed("a finish reason that means nothing")
            self._choices.finish(choice.index, _FINISH[choice.finish_reason])
        return gained if says else None


def _tool_call(call: _ToolCall, place: int) -> pb.ToolCallDelta:
    function = call.function or _Function()
    return pb.ToolCallDelta(
        index=place if call.index is None else call.index,
        id=call.id or "",
        name=function.name or "",
        arguments_json=function.arguments or "",
    )


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
    entry = pb.TokenLogprob(token_id=-1, text=text, raw=_raw(text, raw), logprob=logprob)
    for other in top:
        entry.top.add(token_id=-1, text=other.token, raw=_raw(other.token, other.bytes), logprob=other.logprob)
    return entry


def _raw(text: str, raw: list[int] | None) -> bytes:
    if raw is None:
        return text.encode("utf-8", errors="replace")
    try:
        return bytes(raw)
    except ValueError as error:
        raise failures.malformed("bytes that are none") from error


def _usage(usage: _Usage) -> pb.Usage:
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    return pb.Usage(
        prompt_tokens=usage.prompt_tokens or 0,
        completion_tokens=usage.completion_tokens or 0,
        cached_tokens=(prompt.cached_tokens if prompt else None) or 0,
        reasoning_tokens=(completion.reasoning_tokens if completion else None) or 0,
    )
