"""Tasks in the background, none of which ends unseen: one that raises, or that returns and should not, is a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, NoReturn, TypeVar

import prometheus_client
import structlog

_log = structlog.get_logger()
_failures = prometheus_client.Counter("headrace_task_failures", "Background tasks that ended as they should not.")
K = TypeVar("K", bound=Hashable)


class TaskFailed(Exception):
    """A background task raised, was cancelled by none of us, or ended although its work never does."""


def spawn(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task for a short while, which its owner holds and cancels; what it raises is logged and counted at once."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_notice)
    return task


def _notice(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _report(f"{task.get_name()}: {error}", error)


def _report(what: str, error: BaseException | None) -> None:
    _failures.inc()
    _log.error("task.failed", what=what, exc_info=error)


class TaskSet:
    """Tasks that live as long as their owner, who closes them. One event loop.

    A failure is logged and counted, told to `on_failure`, and ends `failed()`.
    """

    def __init__(self, on_failure: Callable[[TaskFailed], None] | None = None) -> None:
        # What failed first; None while nothing has.
        self.failure: TaskFailed | None = None
        self._on_failure = on_failure
        self._tasks: dict[asyncio.Task[Any], bool] = {}
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._failed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, name: str, work: Coroutine[Any, Any, Any], *, ends: bool = True) -> asyncio.Task[Any]:
        """Run a task. `ends`: its work may come to an end; otherwise returning is a failure too."""
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = ends
        task.add_done_callback(self._on_done)
        return task

    def expect_ends(self) -> None:
        """From now on any task may return: what it works for is ending."""
        for task in self._tasks:
            self._tasks[task] = True

    def cancel(self, task: asyncio.Task[Any]) -> None:
        """End a task; that is no failure."""
        if task in self._tasks:
            self._cancelled.add(task)
            task.cancel()

    async def failed(self) -> NoReturn:
        """Wait for the first failure. Raises TaskFailed."""
        await self._failed.wait()
        assert self.failure is not None  # what is set with the event
        raise self.failure

    async def close(self) -> None:
        """End every task, and return when the last one has ended."""
        tasks = list(self._tasks)
        for task in tasks:
            self.cancel(task)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        ends = self._tasks.pop(task)
        ours = task in self._cancelled
        self._cancelled.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(f"{task.get_name()}: {error}", error)
        elif task.cancelled() and not ours:
            self._fail(f"{task.get_name()}: was cancelled from within", None)
        elif not (ends or ours):
            self._fail(f"{task.get_name()}: ended although its work never does", None)

    def _fail(self, what: str, error: BaseException | None) -> None:
        _report(what, error)
        failure = TaskFailed(what)
        failure.__cause__ = error
        if self.failure is None:
            self.failure = failure
            self._failed.set()
        if self._on_failure is not None:
            self._on_failure(failure)


class KeyedTasks(Generic[K]):
    """One task for each of a changing set of keys: `work(key)`, until the key is dropped. The work has no end."""

    def __init__(self, work: Callable[[K], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._by_key: dict[K, asyncio.Task[None]] = {}
        self._tasks = TaskSet()

    def keep(self, keys: set[K]) -> None:
        """Work on these keys from now on, and on no others."""
        for key in self._by_key.keys() - keys:
            self._tasks.cancel(self._by_key.pop(key))
        for key in keys - self._by_key.keys():
            self._by_key[key] = self._tasks.start(f"{key}", self._work(key), ends=False)

    async def run(self) -> NoReturn:
        """Until cancelled, which ends all the work. Raises TaskFailed when a key's work ends or raises."""
        try:
            await self._tasks.failed()
        finally:
            self._by_key.clear()
            await self._tasks.close()
