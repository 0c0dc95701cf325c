"""Answers to chat requests: put together whole, or chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from gateway.core.openai import chat_types as wire
from gateway.core.openai.answer import FINISH, Disclosed, Heading, Usage, event
from gateway.core.request_pipeline import Chunk
from headrace.common.v1 import generation_pb2 as pb

_encode = msgspec.json.Encoder().encode


class _Choice:
    """One answer in the making."""

    __slots__ = ("finish", "logprobs", "refusal", "text", "tools")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal = ""
        self.logprobs: list[wire.TokenLogprob] = []
        self.tools: dict[int, wire.CalledTool] = {}
        self.finish: Any = None

    def add(self, delta: pb.ChoiceDelta) -> None:
        if delta.text:
            self.text.append(delta.text)
        self.refusal += delta.refusal
        if delta.logprobs:
            self.logprobs += _logprobs(delta.logprobs)
        for piece in delta.tool_calls:
            tool = self.tools.setdefault(piece.index, wire.CalledTool("", wire.CalledFunction("", "")))
            tool.id += piece.id
            tool.function.name += piece.name
            tool.function.arguments += piece.arguments_json
        if delta.finish_reason:
            self.finish = FINISH[delta.finish_reason]

    def made(self, index: int, *, logprobs: bool) -> wire.ChatChoice:
        content = "".join(self.text)
        message = wire.AnswerMessage(content or None if self.tools or self.refusal else content, self.refusal or None)
        if self.tools:
            message.tool_calls = [tool for _, tool in sorted(self.tools.items())]
        return wire.ChatChoice(index, message, wire.ChatLogprobs(self.logprobs) if logprobs else None, self.finish)


class ChatAnswer:
    """A whole answer. Feed it every part, then encode it."""

    def __init__(self, heading: Heading, sampling: pb.Sampling) -> None:
        self._heading = heading
        self._logprobs = sampling.logprobs
        self._choices = [_Choice() for _ in range(sampling.n)]

    def add(self, chunk: Chunk) -> None:
        """Take a part in."""
        self._heading.learn(chunk.message)
        for delta in chunk.message.deltas:
            self._choices[delta.index].add(delta)

    def encode(self, usage: Usage, disclosed: Disclosed | None) -> bytes:
        """The answer as JSON."""
        heading = self._heading
        choices = [choice.made(i, logprobs=self._logprobs) for i, choice in enumerate(self._choices)]
        made = wire.ChatCompletion(heading.id, heading.created, heading.model, choices, usage, heading.fingerprint)
        made.headrace = disclosed or UNSET
        return _encode(made)


class ChatStream:
    """An answer as events."""

    def __init__(self, heading: Heading, sampling: pb.Sampling, *, include_usage: bool) -> None:
        self._heading = heading
        self._unspoken = set(range(sampling.n))
        self._include_usage = include_usage

    def events(self, chunk: Chunk) -> bytes:
        """A part as events; empty where it has nothing for the caller."""
        self._heading.learn(chunk.message)
        chunks = (self._chunk(delta) for delta in chunk.message.deltas)
        return b"".join([event(chunk) for chunk in chunks if chunk is not None])

    def last(self, usage: Usage, disclosed: Disclosed | None) -> bytes:
        """What comes after the finish reasons: the usage and the disclosure, as far as they were asked for."""
        if not self._include_usage and disclosed is None:
            return b""
        chunk = self._empty()
        chunk.usage = usage if self._include_usage else UNSET
        chunk.headrace = disclosed or UNSET
        return event(chunk)

    def _chunk(self, delta: pb.ChoiceDelta) -> wire.ChatCompletionChunk | None:
        index = delta.index
        gained = wire.Delta()
        if delta.text:
            gained.content = delta.text
        if delta.refusal:
            gained.refusal = delta.refusal
        if delta.tool_calls:
            gained.tool_calls = [_tool_delta(piece) for piece in delta.tool_calls]
        nothing = not (delta.text or delta.refusal or delta.tool_calls or delta.logprobs or delta.finish_reason)
        if nothing:
            return None
        if index in self._unspoken:
            self._unspoken.discard(index)
            gained.role = "assistant"
            if gained.content is UNSET and not delta.tool_calls:
                gained.content = ""
        logprobs = wire.ChatLogprobs(_logprobs(delta.logprobs)) if delta.logprobs else None
        finish: Any = FINISH[delta.finish_reason] if delta.finish_reason else None
        chunk = self._empty()
        chunk.choices.append(wire.ChunkChoice(index, gained, logprobs, finish))
        return chunk

    def _empty(self) -> wire.ChatCompletionChunk:
        heading = self._heading
        usage: UnsetType | None = None if self._include_usage else UNSET
        return wire.ChatCompletionChunk(
            heading.id, heading.created, heading.model, [], heading.fingerprint, usage=usage
        )


def _tool_delta(piece: pb.ToolCallDelta) -> wire.CalledToolDelta:
    made = wire.CalledToolDelta(piece.index, wire.CalledFunctionDelta(piece.arguments_json))
    if piece.id:
        made.id, made.type = piece.id, "function"
    if piece.name:
        made.function.name = piece.name
    return made


def _logprobs(entries: Iterable[pb.TokenLogprob]) -> list[wire.TokenLogprob]:
    return [
        wire.TokenLogprob(
            entry.text,
            entry.logprob,
            list(entry.raw) or None,
            [wire.TopLogprob(other.text, other.logprob, list(other.raw) or None) for other in entry.top],
        )
        for entry in entries
    ]
