"""When an answer's messages may go to the caller. What is still held is lost without a trace when its node fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol

from headrace.router.v1 import router_pb2
from router.core.catalog import Commit
from router.core.merging import Merged
from router.core.token_estimate import tokens_of

Message = router_pb2.GenerateResponse
# An answer larger than this is let go, however it should have been held: the router's memory is not the caller's.
_MAX_HELD_BYTES: Final = 4 * 1024 * 1024


class ReleasePolicy(Protocol):
    """Holds messages back. `push` gives those that may go now, in order; a message with a summary lets all go."""

    def push(self, message: Message, now: float) -> Sequence[Message]:
        """Take one message in."""
        ...


class Held:
    """Messages that wait, bounded by their size."""

    __slots__ = ("_bytes", "messages")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._bytes = 0

    def add(self, message: Message) -> bool:
        """Hold a message; False when no more may be held."""
        self.messages.append(message)
        self._bytes += message.ByteSize()
        return self._bytes <= _MAX_HELD_BYTES

    def take(self) -> list[Message]:
        """All that waits."""
        messages, self.messages, self._bytes = self.messages, [], 0
        return messages


class Open:
    """Holds nothing: the first message commits."""

    def push(self, message: Message, now: float) -> Sequence[Message]:
        """See ReleasePolicy."""
        return (message,)


class Window:
    """Holds until so many tokens have come, or so much time has passed since the first."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._held = Held()
        self._tokens = 0
        self._since: float | None = None
        self._open = False

    def push(self, message: Message, now: float) -> Sequence[Message]:
        """See ReleasePolicy."""
        if self._open:
            return (message,)
        self._since = now if self._since is None else self._since
        self._tokens += tokens_of(message)
        room = self._held.add(message)
        late = now - self._since >= self._commit.max_s
        self._open = self._tokens >= self._commit.tokens or late or not room or message.HasField("summary")
        return self._held.take() if self._open else ()


class Whole:
    """Holds the whole answer: for what is worth nothing in part."""

    def __init__(self) -> None:
        self._held = Held()
        self._open = False

    def push(self, message: Message, now: float) -> Sequence[Message]:
        """See ReleasePolicy."""
        if self._open:
            return (message,)
        self._open = not self._held.add(message) or message.HasField("summary")
        return self._held.take() if self._open else ()


class Merging:
    """Holds the whole answer and gives it as one message: for a caller who takes it whole.

    One that is larger than may be held is let go in large messages, and is then committed.
    """

    def __init__(self) -> None:
        self._merged = Merged()

    def push(self, message: Message, now: float) -> Sequence[Message]:
        """See ReleasePolicy."""
        self._merged.add(message)
        if self._merged.size <= _MAX_HELD_BYTES and not message.HasField("summary"):
            return ()
        merged, self._merged = self._merged, Merged()
        return (merged.message(),)


class ToolCalls:
    """Lets text pass and holds tool calls until their choice has ended: no caller ever sees half a call."""

    def __init__(self, inner: ReleasePolicy) -> None:
        self._inner = inner
        self._held = Held()
        self._calling: set[int] = set()

    def push(self, message: Message, now: float) -> Sequence[Message]:
        """See ReleasePolicy."""
        for delta in message.deltas:
            if delta.finish_reason:
                self._calling.discard(delta.index)
            elif delta.tool_calls:
                self._calling.add(delta.index)
        room = self._held.add(message)
        if self._calling and room and not message.HasField("summary"):
            return ()
        return [out for held in self._held.take() for out in self._inner.push(held, now)]


def release_policy_for(
    *, merged: bool, structured: bool, tools: bool, commit: Commit | Literal["whole"]
) -> ReleasePolicy:
    """How an answer is held: `merged` when its caller takes it whole, `structured` when a schema binds and holds it."""
    if merged:
        return Merging()
    if structured or commit == "whole":
        return Whole()
    inner: ReleasePolicy = Open() if commit.tokens == 1 else Window(commit)
    return ToolCalls(inner) if tools else inner
