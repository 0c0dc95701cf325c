"""The stream of Gemini's streamGenerateContent (alt=sse), read into deltas."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.common.v1 import generation_pb2 as pb
from inference.core.providers import failures
from inference.core.providers.call_ids import FreshIds
from inference.core.providers.chunks import as_json, count, decode
from inference.core.providers.finishing import Choices
from inference.core.providers.halves import Halves, whole
from inference.core.providers.sse import SseEvent

_FINISH: Final = {
    "STOP": pb.FINISH_REASON_STOP,
    "MAX_TOKENS": pb.FINISH_REASON_LENGTH,
    "SAFETY": pb.FINISH_REASON_CONTENT_FILTER,
    "RECITATION": pb.FINISH_REASON_CONTENT_FILTER,
    "LANGUAGE": pb.FINISH_REASON_CONTENT_FILTER,
    "BLOCKLIST": pb.FINISH_REASON_CONTENT_FILTER,
    "PROHIBITED_CONTENT": pb.FINISH_REASON_CONTENT_FILTER,
    "SPII": pb.FINISH_REASON_CONTENT_FILTER,
    "IMAGE_SAFETY": pb.FINISH_REASON_CONTENT_FILTER,
    "IMAGE_PROHIBITED_CONTENT": pb.FINISH_REASON_CONTENT_FILTER,
    "IMAGE_RECITATION": pb.FINISH_REASON_CONTENT_FILTER,
}


class _Named(msgspec.Struct, rename="camel"):
    """A function call in one piece; the API never splits one."""

    name: str
    args: dict[str, Any] | None = None
    id: str | None = None


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool = False
    function_call: _Named | None = None


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Token(msgspec.Struct, rename="camel"):
    token: str = ""
    token_id: int = -1
    log_probability: float = 0.0


class _Top(msgspec.Struct):
    candidates: list[_Token] | None = None


class _Logprobs(msgspec.Struct, rename="camel"):
    chosen_candidates: list[_Token] | None = None
    top_candidates: list[_Top] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    index: int = 0
    content: _Content | None = None
    finish_reason: str | None = None
    # For people: what was wrong.
    finish_message: str | None = None
    logprobs_result: _Logprobs | None = None


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _Response(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: dict[str, Any] | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Response, strict=False)


class GeminiReader:
    """See inference.core.providers.dialect.Reader.

    The stream has no end of its own: it is over when every candidate has a finish reason and the body ends as HTTP
    says it does. `ids` gives ids to calls, which older models do not name.
    """

    def __init__(self, expected: int, ids: FreshIds) -> None:
        self._expected = expected
        self._choices = Choices(expected)
        self._usage = pb.Usage()
        self._ids = ids
        self._calls = [0] * expected
        self._halves: Halves[int] = Halves()
        self.done = False

    @property
    def progress(self) -> int:
        """See Reader."""
        return self._choices.progress

    @property
    def whole(self) -> bool:
        """See Reader. Only the stream's end says so: some models send a finish reason with every chunk."""
        return False

    def take(self, event: SseEvent) -> list[pb.ChoiceDelta]:
        """See Reader."""
        response = decode(_decoder, event.data, "a chunk that is not a GenerateContentResponse")
        if response.error:
            raise failures.of_body(failures.decode_error(event.data.encode(errors="replace")))
        if response.usage_metadata is not None:
            self._usage = _usage(response.usage_metadata)
        if response.prompt_feedback is not None and response.prompt_feedback.block_reason:
            return self._blocked(response.prompt_feedback.block_reason)
        deltas = [self._delta(candidate) for candidate in response.candidates or ()]
        return [delta for delta in deltas if delta.text or delta.tool_calls or delta.logprobs]

    def end(self) -> tuple[list[pb.ChoiceDelta], pb.GenerationSummary]:
        """See Reader."""
        lost = [pb.ChoiceDelta(index=index, text=text) for index, text in self._halves.lost()]
        return lost + self._choices.end(), pb.GenerationSummary(usage=self._usage)

    def cut(self) -> tuple[list[pb.ChoiceDelta], pb.GenerationSummary]:
        """See Reader."""
        return self._choices.cut(), pb.GenerationSummary(usage=self._usage)

    def _blocked(self, reason: str) -> list[pb.ChoiceDelta]:
        for index in range(self._expected):
            self._choices.finish(index, pb.FINISH_REASON_CONTENT_FILTER)
        refusal = f"The provider refused the prompt ({reason[:40]})."
        return [pb.ChoiceDelta(index=index, refusal=refusal) for index in range(self._expected)]

    def _delta(self, candidate: _Candidate) -> pb.ChoiceDelta:
        index = self._choices.checked(candidate.index)
        gained = pb.ChoiceDelta(index=index)
        for part in (candidate.content.parts or ()) if candidate.content else ():
            self._choices.gained()
            if part.text and not part.thought:
                gained.text += self._halves.join(index, part.text)
            if part.function_call is not None:
                gained.tool_calls.append(self._call(index, part.function_call))
        if candidate.logprobs_result is not None:
            gained.logprobs.extend(_logprobs(candidate.logprobs_result))
        if candidate.finish_reason:
            self._finish(index, candidate.finish_reason, whole(candidate.finish_message or ""))
        return gained

    def _finish(self, index: int, reason: str, said: str) -> None:
        if reason not in _FINISH:
            # A call that the model garbled, an image it did not draw, "other": nothing to answer with.
            raise failures.model_failed(whole(reason), said)
        self._choices.finish(index, _FINISH[reason])

    def _call(self, index: int, call: _Named) -> pb.ToolCallDelta:
        place = self._calls[index]
        self._calls[index] += 1
        self._choices.called(index)
        return pb.ToolCallDelta(
            index=place,
            id=whole(call.id or "") or self._ids.make(index, place),
            name=whole(call.name),
            arguments_json=as_json(call.args or {}),
        )


def _logprobs(result: _Logprobs) -> list[pb.TokenLogprob]:
    chosen = result.chosen_candidates or []
    tops = result.top_candidates or [_Top()] * len(chosen)
    entries = []
    for token, top in zip(chosen, tops, strict=False):
        entry = pb.TokenLogprob(**_token(token))
        for other in top.candidates or ():
            entry.top.add(**_token(other))
        entries.append(entry)
    return entries


def _token(token: _Token) -> dict[str, Any]:
    text = whole(token.token)
    return {
        "token_id": token.token_id if -1 <= token.token_id < 1 << 31 else -1,
        "text": text,
        "raw": text.encode(),
        "logprob": token.log_probability,
    }


def _usage(usage: dict[str, Any]) -> pb.Usage:
    def tokens(name: str) -> int:
        return count(usage.get(name))

    thoughts = tokens("thoughtsTokenCount")
    return pb.Usage(
        prompt_tokens=count(tokens("promptTokenCount") + tokens("toolUsePromptTokenCount")),
        # Thoughts are billed as output, and counted apart.
        completion_tokens=count(tokens("candidatesTokenCount") + thoughts),
        cached_tokens=tokens("cachedContentTokenCount"),
        reasoning_tokens=thoughts,
    )
