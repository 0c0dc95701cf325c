"""One task for each of a changing set of things."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class TaskSet(Generic[K]):
    """Runs `work(key)` for each key that is kept, until the key is dropped. The work does not end by itself."""

    def __init__(self, work: Callable[[K], Awaitable[None]]) -> None:
        self._work = work
        self._tasks: dict[K, asyncio.Task[None]] = {}
        self._defect: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def keep(self, keys: set[K]) -> None:
        """Work on these keys from now on, and on no others."""
        for key in self._tasks.keys() - keys:
            self._tasks.pop(key).cancel()
        for key in keys - self._tasks.keys():
            task = asyncio.create_task(self._run(key), name=f"{key}")
            task.add_done_callback(self._on_done)
            self._tasks[key] = task

    async def run(self) -> None:
        """Until cancelled, which ends all the work. Raises what work fails with."""
        try:
            await self._defect
        finally:
            tasks = list(self._tasks.values())
            self.keep(set())
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: K) -> None:
        await self._work(key)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) and not self._defect.done():
            self._defect.set_exception(error)
