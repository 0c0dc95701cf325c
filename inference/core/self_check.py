"""Whether the engine can still answer at all, asked when answers fail one after the other.

An answer that fails says nothing of the engine: its own request may be the cause. So after a few in a row the engine is
asked something harmless; only if that fails as well the node stops being ready, and is again once it succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

# Failed answers in a row before the engine is asked, and the seconds between two questions while it fails.
SUSPICIOUS = 3
AGAIN_AFTER_S = 5.0


class SelfCheck:
    """`probe` asks the engine and raises when it does not answer; `failing` and `well` hear of a change."""

    def __init__(
        self,
        probe: Callable[[], Awaitable[None]],
        failing: Callable[[Exception], Awaitable[None]],
        well: Callable[[], Awaitable[None]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._probe = probe
        self._failing = failing
        self._well = well
        self._sleep = sleep
        self._in_a_row = 0
        self._suspicion = asyncio.Event()

    def answered(self) -> None:
        """An answer has ended as it should."""
        self._in_a_row = 0

    def failed(self) -> None:
        """An answer has failed, perhaps through its own request."""
        self._in_a_row += 1
        if self._in_a_row >= SUSPICIOUS:
            self._suspicion.set()

    async def run(self) -> None:
        """Ask whenever there is a suspicion, until cancelled."""
        while True:
            await self._suspicion.wait()
            failing = False
            while (error := await self._ask()) is not None:
                if not failing:
                    failing = True
                    await self._failing(error)
                await self._sleep(AGAIN_AFTER_S)
            self._in_a_row = 0
            self._suspicion.clear()
            if failing:
                await self._well()

    async def _ask(self) -> Exception | None:
        try:
            await self._probe()
        except Exception as error:
            return error
        return None
