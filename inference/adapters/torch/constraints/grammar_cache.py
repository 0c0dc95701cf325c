"""Compiled grammars, made off the event loop, kept while their tenant used them lately."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

from inference.core.constraints.compile_queue import CompileQueue
from inference.core.port import Constraint, ConstraintKind, EngineError

if TYPE_CHECKING:
    from .compiler import Compiler

# Of each tenant, so that nobody pushes another's out, and of all: the largest take about 3 MB each.
KEPT_GRAMMARS, KEPT_IN_ALL = 64, 128
SUPPORTED = frozenset(ConstraintKind)
# Tenants do not share what is kept: the time that an answer takes would tell what others ask for.
_Key: TypeAlias = tuple[str, Constraint]


class _Job:
    """A grammar that somebody waits for."""

    def __init__(self, key: _Key) -> None:
        self.key = key
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting = 0


class Grammars:
    """A cache of compiled grammars with one compilation at a time, tenants in turn. Used on the event loop."""

    def __init__(
        self, vocabulary: Callable[[], Sequence[bytes]], vocab_size: int, eos_ids: Sequence[int], threads: int
    ) -> None:
        self._vocabulary = vocabulary
        self._vocab_size = vocab_size
        self._eos_ids = eos_ids
        self._threads = threads
        # One thread: a costly grammar delays the next new one, for as long as Compiler lets in, and nothing else.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        self._compiler: Compiler | None = None
        self._kept: OrderedDict[_Key, Any] = OrderedDict()
        self._jobs: dict[_Key, _Job] = {}
        self._queue: CompileQueue[_Job] = CompileQueue()
        self._running: asyncio.Future[Any] | None = None
        self._closed = False

    def warm(self) -> None:
        """Import and prepare the compiler in the background; a first constraint would wait for it."""
        self._executor.submit(self._prepared)

    async def compile(self, constraint: Constraint, tenant: str) -> Any:
        """The compiled grammar: at once when it is kept. Concurrent calls for the same one compile it once.

        Raises UnsupportedConstraint, and EngineOverloaded when too many of the tenant's wait. When all that wait for a
        grammar are cancelled before its turn, it is not compiled.
        """
        key = (tenant, constraint)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        job = self._jobs.get(key) or self._enter(key)
        job.waiting += 1
        try:
            return await asyncio.shield(job.done)
        finally:
            job.waiting -= 1
            if not job.waiting and not job.done.done():
                self._abandon(job)

    def close(self) -> None:
        """Let no more compile. Callable twice."""
        self._closed = True
        for job in self._queue.clear():
            self._finish(job, EngineError("the engine is stopping"), None)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _enter(self, key: _Key) -> _Job:
        if self._closed:
            raise EngineError("the engine is stopping")
        job = _Job(key)
        # A refusal that nobody waits for any more is no mistake.
        job.done.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._queue.put(key[0], job)
        self._jobs[key] = job
        self._next()
        return job

    def _abandon(self, job: _Job) -> None:
        """Nobody waits any more: leave the queue, or let what runs come to its end for whoever asks next."""
        if self._queue.drop(job.key[0], job):
            del self._jobs[job.key]

    def _next(self) -> None:
        if self._running is not None or self._closed:
            return
        job = self._queue.take()
        if job is None:
            return
        self._running = asyncio.get_running_loop().run_in_executor(self._executor, self._compile, job.key[1])
        self._running.add_done_callback(lambda ran: self._ran(job, ran))

    def _ran(self, job: _Job, ran: asyncio.Future[Any]) -> None:
        self._running = None
        error = EngineError("the engine is stopping") if ran.cancelled() else ran.exception()
        self._finish(job, error, None if error else ran.result())
        self._next()

    def _finish(self, job: _Job, error: BaseException | None, grammar: Any) -> None:
        del self._jobs[job.key]
        if error is not None:
            job.done.set_exception(error)
            return
        job.done.set_result(grammar)
        self._kept[job.key] = grammar
        of_tenant = [key for key in self._kept if key[0] == job.key[0]]
        if len(of_tenant) > KEPT_GRAMMARS:
            del self._kept[of_tenant[0]]
        if len(self._kept) > KEPT_IN_ALL:
            self._kept.popitem(last=False)

    def _compile(self, constraint: Constraint) -> Any:
        return self._prepared().compile(constraint)

    def _prepared(self) -> Compiler:
        if self._compiler is None:
            from .compiler import Compiler  # noqa: PLC0415 -- importing it takes a second that start need not wait for

            self._compiler = Compiler(self._vocabulary(), self._vocab_size, self._eos_ids, self._threads)
        return self._compiler
