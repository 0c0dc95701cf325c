"""Waiting for an engine's first event, and saying meanwhile how far it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import TypeVar

from inference.core.generation_state import GenerationState, Progress

T = TypeVar("T")
# What starts sooner is not announced; then at most twice a second, as the contract says.
FIRST_AFTER_S = 0.1
EVERY_S = 0.5


async def with_progress(events: AsyncGenerator[T, None], state: GenerationState) -> AsyncGenerator[T | Progress, None]:
    """The events, and before the first of them how far the generation is. Closing it closes `events`."""
    async with contextlib.aclosing(events):
        first = asyncio.ensure_future(anext(events, None))
        try:
            wait_s = FIRST_AFTER_S
            while not (await asyncio.wait({first}, timeout=wait_s))[0]:
                wait_s = EVERY_S
                progress = state.progress()
                if progress is not None:
                    yield progress
        finally:
            if not first.done():
                first.cancel()
                # The generator must have let go before it can be closed.
                await asyncio.wait({first})
        if (event := first.result()) is None:
            return
        yield event
        async for event in events:
            yield event
