"""From the engine's thread to whoever reads a generation: one wake-up of the event loop a step, for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from inference.core.port import (
    Confidence,
    EngineDelta,
    EngineError,
    EngineEvent,
    EngineSummary,
    Finish,
    GenerationFailed,
    TokenLogprob,
)


@dataclass(slots=True)
class _Pending:
    """What one choice gained since its reader last looked."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: Finish | None = None
    confidence: Confidence | None = None


class EventQueue:
    """The events of one generation. Used on the event loop only.

    A slow reader finds all that came meanwhile merged into one delta a choice, so at most the answer itself is held.
    """

    def __init__(self) -> None:
        self._pending: dict[int, _Pending] = {}
        self._end: EngineSummary | EngineError | None = None
        self._arrived: asyncio.Future[None] | None = None

    def put(self, index: int, gained: TokenOutput) -> None:
        """Add to choice `index`."""
        pending = self._pending.get(index)
        if pending is None:
            pending = self._pending[index] = _Pending()
        if gained.token is not None:
            pending.tokens.append(gained.token)
        if gained.logprob is not None:
            pending.logprobs.append(gained.logprob)
        if gained.finish is not None:
            pending.finish, pending.confidence = gained.finish, gained.confidence
        self._wake()

    def end(self, how: EngineSummary | EngineError) -> None:
        """Say that nothing more comes; the first word counts."""
        if self._end is None:
            self._end = how
            self._wake()

    async def get(self) -> EngineEvent:
        """The next event, in order. Raises the EngineError that ended the generation once all before it was read."""
        while not self._pending:
            if isinstance(self._end, EngineSummary):
                return self._end
            if self._end is not None:
                raise self._end
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        index = next(iter(self._pending))
        gained = self._pending.pop(index)
        return EngineDelta(index, tuple(gained.tokens), tuple(gained.logprobs), gained.finish, gained.confidence)

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """What one choice gained in a step, or how it ended."""

    token: int | None = None
    logprob: TokenLogprob | None = None
    finish: Finish | None = None
    confidence: Confidence | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """For one event queue: the output of one choice, or with `end` the end of the generation."""

    event_queue: EventQueue
    index: int = 0
    gain: TokenOutput | None = None
    end: EngineSummary | EngineError | None = None


def deliver(deliveries: Sequence[Delivery]) -> None:
    """Sort a step's deliveries into their event queues. On the event loop. One that cannot be ends its generation."""
    for delivery in deliveries:
        try:
            if delivery.gain is not None:
                delivery.event_queue.put(delivery.index, delivery.gain)
            if delivery.end is not None:
                delivery.event_queue.end(delivery.end)
        except Exception as error:
            delivery.event_queue.end(GenerationFailed(f"an event could not be delivered ({type(error).__name__})"))
