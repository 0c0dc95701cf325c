"""What the transport asks of a provider's translation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from headrace.common.v1.generation_pb2 import ChoiceDelta, GenerationSummary
from inference.core.chat_port import ChatRequest
from inference.core.providers.sse import SseEvent


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A POST of JSON. `path` comes after the node's base URL. No credentials are in it."""

    path: str
    body: dict[str, Any]
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


class Reader(Protocol):
    """Reads one answer. Every method raises MeshError where the provider reports one or breaks its own rules."""

    @property
    def progress(self) -> int:
        """Grows with every sign that the model is at work. Keep-alives are none."""
        ...

    @property
    def done(self) -> bool:
        """The provider's own end of the stream has come; what follows is not read."""
        ...

    @property
    def whole(self) -> bool:
        """Nothing of the answer is missing, whether or not the provider says its own end."""
        ...

    def take(self, event: SseEvent) -> Sequence[ChoiceDelta]:
        """What an event adds for the caller."""
        ...

    def end(self) -> tuple[Sequence[ChoiceDelta], GenerationSummary]:
        """The last deltas, which carry the finish reasons, and the summary.

        Finish reasons are held back until here: a caller must not see one on a stream that was cut.
        """
        ...

    def cut(self) -> tuple[Sequence[ChoiceDelta], GenerationSummary]:
        """The same where the node ends the answer: what is not over ends for its length. Usage as far as known."""
        ...


class Dialect(Protocol):
    """One kind of provider."""

    def call(self, request: ChatRequest) -> HttpCall:
        """The request as the provider wants it. Raises MeshError naming the field that it cannot hold."""
        ...

    def reader(self, request: ChatRequest) -> Reader:
        """For the answer to that request."""
        ...
