"""What the caller has been given so far: enough to go on from there on another node, without a gap or a repetition."""

from __future__ import annotations

from headrace.common.v1 import generation_pb2
from headrace.router.v1 import router_pb2


class ResumeBuffer:
    """The messages that went out, by reference; they are only looked into when an answer has to be resumed."""

    __slots__ = ("_choices", "_messages", "finished", "resumable", "tokens")

    def __init__(self, choices: int) -> None:
        self._choices = choices
        self._messages: list[router_pb2.GenerateResponse] = []
        self.finished: set[int] = set()
        # Token ids given out; text without ids cannot be resumed.
        self.tokens = 0
        self.resumable = True

    def __bool__(self) -> bool:
        return bool(self._messages)

    def would_complete(self, message: router_pb2.GenerateResponse) -> bool:
        """Whether every choice has its finish reason once this message went out."""
        return len(self.finished.union(d.index for d in message.deltas if d.finish_reason)) >= self._choices

    def add(self, message: router_pb2.GenerateResponse) -> None:
        """Remember a message that goes out now."""
        self._messages.append(message)
        for delta in message.deltas:
            count = len(delta.token_ids)
            self.tokens += count
            if delta.finish_reason:
                self.finished.add(delta.index)
            elif not count:
                self.resumable = False

    def without_finished(self, message: router_pb2.GenerateResponse) -> None:
        """Strike what a resuming node says about choices that had already ended."""
        kept = [delta for delta in message.deltas if delta.index not in self.finished]
        if len(kept) != len(message.deltas):
            copies = [generation_pb2.ChoiceDelta.FromString(delta.SerializeToString()) for delta in kept]
            del message.deltas[:]
            message.deltas.extend(copies)

    def emitted(self) -> list[generation_pb2.Generation.Emitted]:
        """What each choice has emitted, for `Generation.resume`; one entry per choice, in order."""
        entries = [generation_pb2.Generation.Emitted(index=i) for i in range(self._choices)]
        texts: list[list[str]] = [[] for _ in entries]
        for message in self._messages:
            for delta in message.deltas:
                if 0 <= delta.index < self._choices:
                    entries[delta.index].token_ids.extend(delta.token_ids)
                    texts[delta.index].append(delta.text)
        for entry, text in zip(entries, texts, strict=True):
            entry.text = "".join(text)
        return entries
