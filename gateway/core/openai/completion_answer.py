"""Answers to completion requests: put together whole, or chunk by chunk.

Choice c of prompt p, where n are wanted of each, has the index p * n + c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from gateway.core.openai import completion_types as wire
from gateway.core.openai.answer import FINISH, Disclosed, Heading, Usage, event
from gateway.core.request_pipeline import Chunk
from headrace.common.v1 import generation_pb2 as pb

_encode = msgspec.json.Encoder().encode


class _Choice:
    """One answer in the making, from the text it begins with."""

    __slots__ = ("finish", "logprobs", "offset", "text")

    def __init__(self, echo: str, *, logprobs: bool) -> None:
        self.text = echo
        self.offset = len(echo)
        self.logprobs = wire.CompletionLogprobs() if logprobs else None
        self.finish: Any = None

    def add(self, delta: pb.ChoiceDelta) -> None:
        """Take a delta in."""
        self.text += delta.text
        if self.logprobs is not None:
            for entry in delta.logprobs:
                self._add_logprob(self.logprobs, entry)
        if delta.finish_reason:
            self.finish = FINISH[delta.finish_reason]

    def take(self, index: int) -> wire.CompletionChoice:
        """What was gained since the last time."""
        made = wire.CompletionChoice(index, self.text, self.logprobs, self.finish)
        self.text = ""
        if self.logprobs is not None:
            self.logprobs = wire.CompletionLogprobs()
        return made

    def _add_logprob(self, logprobs: wire.CompletionLogprobs, entry: pb.TokenLogprob) -> None:
        logprobs.tokens.append(entry.text)
        logprobs.token_logprobs.append(entry.logprob)
        logprobs.top_logprobs.append({other.text: other.logprob for other in entry.top})
        logprobs.text_offset.append(self.offset)
        self.offset += len(entry.text)


class _Choices:
    """All answers to all prompts; an echo for each prompt, or none at all."""

    def __init__(self, sampling: pb.Sampling, prompts: int, echoes: Sequence[str]) -> None:
        self._n = sampling.n
        texts = echoes or [""] * prompts
        self.all = [_Choice(text, logprobs=sampling.logprobs) for text in texts for _ in range(self._n)]

    def add(self, chunk: Chunk) -> list[int]:
        """Take a part in; the indexes of the choices that gained something for the caller."""
        gained = []
        for delta in chunk.message.deltas:
            index = chunk.prompt * self._n + delta.index
            self.all[index].add(delta)
            if delta.text or delta.logprobs or delta.finish_reason:
                gained.append(index)
        return gained


class CompletionAnswer:
    """A whole answer. Feed it every part, then encode it."""

    def __init__(self, heading: Heading, sampling: pb.Sampling, prompts: int, echoes: Sequence[str]) -> None:
        self._heading = heading
        self._choices = _Choices(sampling, prompts, echoes)

    def add(self, chunk: Chunk) -> None:
        """Take a part in."""
        self._heading.learn(chunk.message)
        self._choices.add(chunk)

    def encode(self, usage: Usage, disclosed: Disclosed | None) -> bytes:
        """The answer as JSON."""
        heading = self._heading
        choices = [choice.take(i) for i, choice in enumerate(self._choices.all)]
        made = wire.Completion(heading.id, heading.created, heading.model, choices, heading.fingerprint)
        made.usage = usage
        made.headrace = disclosed or UNSET
        return _encode(made)


class CompletionStream:
    """An answer as events."""

    def __init__(
        self, heading: Heading, sampling: pb.Sampling, prompts: int, echoes: Sequence[str], *, include_usage: bool
    ) -> None:
        self._heading = heading
        self._choices = _Choices(sampling, prompts, echoes)
        self._include_usage = include_usage

    def events(self, chunk: Chunk) -> bytes:
        """A part as events; empty where it has nothing for the caller."""
        self._heading.learn(chunk.message)
        gained = dict.fromkeys(self._choices.add(chunk))
        return b"".join([event(self._chunk([self._choices.all[i].take(i)])) for i in gained])

    def last(self, usage: Usage, disclosed: Disclosed | None) -> bytes:
        """What comes after the finish reasons: the usage and the disclosure, as far as they were asked for."""
        if not self._include_usage and disclosed is None:
            return b""
        chunk = self._chunk([])
        chunk.usage = usage if self._include_usage else UNSET
        chunk.headrace = disclosed or UNSET
        return event(chunk)

    def _chunk(self, choices: list[wire.CompletionChoice]) -> wire.Completion:
        heading = self._heading
        chunk = wire.Completion(heading.id, heading.created, heading.model, choices, heading.fingerprint)
        if self._include_usage:
            chunk.usage = None
        return chunk
