"""What the caller has been given so far: enough to go on from there on another node, without a gap or a repetition."""

from __future__ import annotations

from array import array
from typing import Final

from headrace.common.v1 import generation_pb2
from headrace.router.v1 import router_pb2

# An answer that is larger than this is no longer remembered, and so cannot be resumed any more.
MAX_BYTES: Final = 4 * 1024 * 1024
_TOKEN_BYTES: Final = 4


class ResumeBuffer:
    """The token ids and the text that went out, choice by choice, at most 4 MiB of them.

    Where `keeps` is false nothing is remembered but what has ended: the answer is not going to be resumed.
    """

    __slots__ = (
        "_bytes",
        "_choices",
        "_ids",
        "_texts",
        "finished",
        "keeps",
        "resumable",
        "said_more",
        "started",
        "tokens",
    )

    def __init__(self, choices: int, *, keeps: bool = True) -> None:
        self._choices = choices
        self._ids = [array("i") for _ in range(choices)] if keeps else []
        self._texts: list[list[str]] = [[] for _ in range(choices)] if keeps else []
        self._bytes = 0
        self.keeps = keeps
        self.finished: set[int] = set()
        # Whether anything went out at all.
        self.started = False
        # Token ids given out; text without ids cannot be resumed by them.
        self.tokens = 0
        self.resumable = keeps
        # Something that is no text was begun: a tool call, or a refusal. No text can go on from there.
        self.said_more = False

    def add(self, message: router_pb2.GenerateResponse) -> None:
        """Remember a message that goes out now."""
        self.started = True
        for delta in message.deltas:
            if delta.finish_reason:
                self.finished.add(delta.index)
            if not self.keeps:
                continue
            if delta.tool_calls or delta.refusal:
                self.said_more = True
            count = len(delta.token_ids)
            self.tokens += count
            if not count and not delta.finish_reason:
                self.resumable = False
            if 0 <= delta.index < self._choices:
                self._keep(delta)

    def without_finished(self, message: router_pb2.GenerateResponse) -> None:
        """Strike what a resuming node says about choices that had already ended."""
        kept = [delta for delta in message.deltas if delta.index not in self.finished]
        if len(kept) != len(message.deltas):
            copies = [generation_pb2.ChoiceDelta.FromString(delta.SerializeToString()) for delta in kept]
            del message.deltas[:]
            message.deltas.extend(copies)

    def text(self) -> str:
        """What the first choice has emitted."""
        return "".join(self._texts[0]) if self._texts else ""

    def emitted(self) -> tuple[generation_pb2.Generation.Emitted, ...]:
        """What each choice has emitted, for `Generation.resume`; one entry per choice, in order."""
        return tuple(
            generation_pb2.Generation.Emitted(index=i, token_ids=ids, text="".join(texts))
            for i, (ids, texts) in enumerate(zip(self._ids, self._texts, strict=True))
        )

    def _keep(self, delta: generation_pb2.ChoiceDelta) -> None:
        self._ids[delta.index].extend(delta.token_ids)
        if delta.text:
            self._texts[delta.index].append(delta.text)
        self._bytes += len(delta.token_ids) * _TOKEN_BYTES + len(delta.text)
        if self._bytes > MAX_BYTES:
            self.keeps = self.resumable = False
            self._ids, self._texts = [], []
