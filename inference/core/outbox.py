"""Between whoever makes events and whoever writes them to the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """Gathers events while the writer is busy, so that one message carries them all.

    One producer task fills it; it never waits for the writer, and what is gathered is bounded by the answer's length.
    """

    def __init__(self, events: AsyncIterator[T]) -> None:
        self._gathered: list[T] = []
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._fill(events))

    async def closed(self) -> None:
        """Cancel, and return once the producer has let go."""
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def take(self, gather_s: float) -> list[T]:
        """All events so far, at least one; an empty list at the end. Raises what the producer raised.

        Waits up to `gather_s` seconds for more, unless the producer has ended.
        """
        await self._changed.wait()
        if gather_s > 0 and not self._task.done():
            await asyncio.wait([self._task], timeout=gather_s)
        gathered, self._gathered = self._gathered, []
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
                self._changed.set()
        finally:
            self._changed.set()
