"""Requests of another tenant that are themselves the fault: asked over and over, beside the load."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Final

import aiohttp

from ops.drills.spec import FaultPart, RequestPart

# A caller that is turned away at once does not ask again a thousand times a second.
_PAUSE_S: Final = 0.05
# An edge that is gone, or a connection that broke.
_NO_ANSWER: Final = 0


class AskedRequests:
    """See ops.drills.fault_injection.InjectedFault. `ended` counts the requests that ended, by place and status."""

    def __init__(self, part: FaultPart, model: str, url: str, key: str) -> None:
        self._part = part
        self._model = model
        self._url = f"{url}/chat/completions"
        self._key = key
        self._tasks: list[asyncio.Task[None]] = []
        self.ended: Counter[tuple[int, int]] = Counter()
        self.begun = 0

    @property
    def otherwise(self) -> int:
        """Requests that ended in another status than the one that is right for them."""
        return sum(
            count for (place, status), count in self.ended.items() if status not in self._part.requests[place].statuses
        )

    async def inject(self) -> None:
        """Begin to ask."""
        self._tasks = [asyncio.create_task(self._caller(number)) for number in range(self._part.callers)]

    async def heal(self) -> None:
        """Stop asking; what is under way is given up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _caller(self, number: int) -> None:
        async with aiohttp.ClientSession() as http:
            place = number % len(self._part.requests)
            while True:
                self.begun += 1
                self.ended[place, await self._status(http, self._part.requests[place])] += 1
                place = (place + 1) % len(self._part.requests)
                await asyncio.sleep(_PAUSE_S)

    async def _status(self, http: aiohttp.ClientSession, part: RequestPart) -> int:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": part.text * part.times}],
            **part.body,
        }
        headers = {"authorization": f"Bearer {self._key}"} if part.key else {}
        try:
            async with http.post(self._url, json=body, headers=headers) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, OSError):
            return _NO_ANSWER
