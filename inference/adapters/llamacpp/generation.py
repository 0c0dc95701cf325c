"""One request in llama.cpp: its choices side by side, each on a thread of the pool once it has a slot."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from inference.adapters.llamacpp.job import Ended, Job, Pulse
from inference.adapters.llamacpp.lost_tokens import LostTokens
from inference.adapters.llamacpp.wire import Timings
from inference.core.generation_state import Progress, SignsOfLife, Stage
from inference.core.port import EngineDelta, EngineError, EngineEvent, EngineRequest, EngineSummary
from inference.core.slots import Ticket


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """What all generations share: the server, the threads that wait for it, and what is known of its tokens."""

    server: Any
    pool: Executor
    token_bytes: Callable[[int], bytes]
    lost: LostTokens
    pulse: Pulse


class Generation:
    """Call `begin`, read `events`, and call `end` whatever happened; `end` frees every slot within one step."""

    def __init__(self, request: EngineRequest, llama: LlamaCpp) -> None:
        self._request = request
        self._llama = llama
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[EngineDelta | Ended] = asyncio.Queue()
        wanted = request.sampling.logprobs
        self._jobs = [
            Job(i, wanted, llama.token_bytes, llama.lost, self._emit, pulse=llama.pulse) for i in range(request.n)
        ]
        self._life = SignsOfLife(lambda: llama.pulse.beats)
        self._tickets: list[Ticket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._waited_s = 0.0

    def begin(self, bodies: list[bytes], tickets: list[Ticket]) -> None:
        """Start every choice that has a slot, and queue the others. The tickets are given back here."""
        self._tickets = tickets
        for job, body, ticket in zip(self._jobs, bodies, tickets, strict=True):
            task = asyncio.create_task(self._run(job, body, ticket))
            # A task that is cancelled before its first step runs none of its own clean-up.
            task.add_done_callback(ticket.released_by)
            self._tasks.append(task)

    async def events(self) -> AsyncIterator[EngineEvent]:
        """Deltas, then the summary. Raises the first choice's error that there is."""
        ended: list[Ended] = []
        while len(ended) < self._request.n:
            event = await self._events.get()
            if isinstance(event, EngineDelta):
                yield event
                continue
            if event.error is not None:
                raise event.error
            ended.append(event)
        yield self._summary(ended)

    def end_choice(self, index: int) -> None:
        """Let one choice be over at llama.cpp's next step."""
        self._jobs[index].cancelled = True

    def progress(self) -> Progress | None:
        """How far it is before its first token; None where llama.cpp has done nothing since the last call."""
        if not self._life.moved():
            return None
        if all(ticket.queued for ticket in self._tickets):
            return Progress(Stage.QUEUED)
        return Progress(Stage.PREFILL, max(job.read for job in self._jobs))

    async def end(self) -> None:
        """Cancel what still runs and wait until llama.cpp has let go. May be called twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._events.put_nowait(Ended(Timings(), error=EngineError("llama.cpp was stopped")))

    async def _run(self, job: Job, body: bytes, ticket: Ticket) -> None:
        self._waited_s = max(self._waited_s, await ticket.wait())
        running = self._loop.run_in_executor(self._llama.pool, job.run, self._llama.server, body)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            job.cancelled = True
            await asyncio.wait([running])
            raise

    def _emit(self, event: EngineDelta | Ended) -> None:
        # The loop is gone when a process ends in the middle of an answer; then nobody listens either.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def _summary(self, ended: list[Ended]) -> EngineSummary:
        slowest = max(ended, key=lambda one: one.timings.predicted_ms)
        return EngineSummary(
            prompt_tokens=len(self._request.prompt),
            completion_tokens=sum(one.tokens for one in ended),
            cached_tokens=min(len(self._request.prompt), max(one.timings.cache_n for one in ended)),
            queue_s=self._waited_s,
            prefill_s=max(one.timings.prompt_ms for one in ended) / 1e3,
            decode_s=slowest.timings.predicted_ms / 1e3,
        )
