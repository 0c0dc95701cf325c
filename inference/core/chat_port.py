"""The second engine port: for whatever takes messages and gives text, such as a provider behind an HTTP API.

An engine that works on token ids implements `inference.core.port.Engine`. One that keeps its template and its
tokenizer to itself implements this port instead, and its node passes a generation on as it came. Requests and events
are therefore the contract's own messages: a set of types between them would be two translations that add nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from headrace.common.v1.generation_pb2 import (
    ChoiceDelta,
    Generation,
    GenerationProgress,
    GenerationSummary,
    RequestContext,
)
from headrace.inference.v1.inference_pb2 import ModelCard
from inference.core.port import EngineLoad

ChatEvent: TypeAlias = ChoiceDelta | GenerationSummary | GenerationProgress


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One generation, checked: every field is within its range and every capability it needs is on the card.

    `generation.prompt` is a chat or raw text, never token ids; `generation.resume` is empty, or one text to go on from.
    Neither message may be changed.
    """

    context: RequestContext
    generation: Generation
    # Of time.monotonic(); None where the caller set none.
    deadline: float | None = None


class ChatEngine(Protocol):
    """A model that takes messages. Everything is called on one event loop.

    Built without I/O; `close` may be called at any time and twice, and ends what is still running.
    """

    async def start(self) -> None:
        """Make ready. Raises ValueError with words that say what to do; an unreachable provider is no reason."""
        ...

    async def close(self) -> None:
        """Stop, free everything."""
        ...

    @property
    def card(self) -> ModelCard:
        """What the engine serves, complete but for the name and the engine's name, which the node fills in."""
        ...

    def generate(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        """Stream a generation: deltas, with a finish reason on each choice's last, then exactly one summary.

        Progress may come before the first delta, at most twice a second, and only from an engine that waits.

        The summary's model and revision may stay empty. Raises MeshError: before the first delta of whatever kind
        fits (the field named where the request is at fault, `retry_after_s` where the provider says one), after it
        StreamCut. The iterator ends without a summary never. Closing it (`aclose`, or cancelling the task that reads
        it) closes the connection upstream. The node watches the call's deadline and cancels.
        """
        ...

    def load(self) -> EngineLoad:
        """The load right now. Cheap; `capacity` is the configured limit of concurrent calls."""
        ...
