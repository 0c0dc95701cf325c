"""Between whoever makes events and whoever writes them to the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """Gathers events while the writer is busy, so that one message carries them all.

    One producer task fills it. It waits where `most` is reached, measured by `weigh`, until the writer has taken what
    there is; so what is gathered is below `most` but for the last event, however long the writer takes.
    """

    def __init__(self, events: AsyncIterator[T], *, weigh: Callable[[T], int], most: int) -> None:
        self._weigh = weigh
        self._most = most
        self._gathered: list[T] = []
        self._weight = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._task = asyncio.create_task(self._fill(events))

    async def closed(self) -> None:
        """Cancel, and return once the producer has let go."""
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def take(self, gather_s: float) -> list[T]:
        """All events so far, at least one; an empty list at the end. Raises what the producer raised.

        Waits up to `gather_s` seconds for more, unless the producer has ended or waits for room.
        """
        await self._changed.wait()
        if gather_s > 0 and not self._task.done() and self._room.is_set():
            await asyncio.wait([self._task], timeout=gather_s)
        gathered, self._gathered = self._gathered, []
        self._weight = 0
        self._room.set()
        if not self._task.done():
            self._changed.clear()
        elif not gathered:
            # At the end for good: raises here what ended it, if anything did.
            await self._task
        return gathered

    async def _fill(self, events: AsyncIterator[T]) -> None:
        try:
            async for event in events:
                self._gathered.append(event)
                self._weight += self._weigh(event)
                self._changed.set()
                if self._weight >= self._most:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._changed.set()
