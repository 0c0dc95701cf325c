"""Sees a request through: ask the router, hold it to the stream-ending contract, keep the tally."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from gateway.core.keys import Caller
from gateway.core.ports import Router
from gateway.core.tally import Tally
from headrace.common.v1.generation_pb2 import Generation, RequestContext
from headrace.router.v1.router_pb2 import GenerateRequest, GenerateResponse
from mesh.clock import Clock, Deadline
from mesh.errors import MeshError, StreamCut

# Messages of several prompts that wait for the reader; the routers' streams are held back beyond it.
_WAITING: Final = 16


@dataclass(frozen=True, slots=True)
class Ask:
    """An admitted request: one generation for each prompt, mostly one."""

    caller: Caller
    request_id: str
    user: str
    generations: Sequence[Generation]
    deadline: Deadline


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the answer to the prompt of that number."""

    prompt: int
    message: GenerateResponse


class Conductor:
    """The order in which the mesh's services are asked."""

    def __init__(self, router: Router, clock: Clock) -> None:
        self._router = router
        self._clock = clock

    async def answer(self, ask: Ask, tally: Tally) -> AsyncGenerator[Part, None]:
        """The answer in pieces; `tally.complete` is set with the last one, when every choice has its finish reason.

        Raises MeshError before that: StreamCut where a router's stream ended without its end. Closing the iterator
        cancels what is under way at the router; iterating on after the last piece only waits for the calls to end.
        """
        started = self._clock.monotonic()
        parts = self._one(ask, 0, tally) if len(ask.generations) == 1 else self._many(ask, tally)
        unended = len(ask.generations)
        asked = started
        try:
            async with aclosing(parts):
                async for part in parts:
                    now = self._clock.monotonic()
                    tally.waited_s += now - asked
                    if tally.first_s is None:
                        tally.first_s = now - started
                    unended -= part.message.HasField("summary")
                    tally.complete = unended == 0
                    yield part
                    asked = self._clock.monotonic()
        except MeshError:
            tally.waited_s += self._clock.monotonic() - asked
            raise

    async def _one(self, ask: Ask, prompt: int, tally: Tally) -> AsyncGenerator[Part, None]:
        generation = ask.generations[prompt]
        call = self._router.generate(_request(ask, prompt), ask.deadline.left())
        unfinished = max(1, generation.sampling.n)
        ended = False
        try:
            async with aclosing(call.messages()) as messages:
                async for message in messages:
                    tally.add(prompt, message)
                    for delta in message.deltas:
                        unfinished -= delta.finish_reason != 0
                    ended = message.HasField("summary")
                    if ended and unfinished > 0:
                        raise _cut()
                    yield Part(prompt, message)
        except MeshError:
            # Nothing that comes after the summary takes the answer back.
            if not ended or unfinished > 0:
                raise
        finally:
            if call.disclosure is not None:
                tally.disclosures[prompt] = call.disclosure
        if not ended:
            raise _cut()

    async def _many(self, ask: Ask, tally: Tally) -> AsyncGenerator[Part, None]:
        """All prompts at the same time; the first failure ends the others."""
        queue: asyncio.Queue[Part | Exception | None] = asyncio.Queue(_WAITING)

        async def feed(prompt: int) -> None:
            # Cancelled, it says nothing more: nobody would take it out of the queue.
            try:
                async with aclosing(self._one(ask, prompt, tally)) as parts:
                    async for part in parts:
                        await queue.put(part)
            except Exception as error:
                await queue.put(error)
            else:
                await queue.put(None)

        tasks = [asyncio.create_task(feed(prompt)) for prompt in range(len(ask.generations))]
        left = len(tasks)
        try:
            while left:
                item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    left -= 1
                else:
                    yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _cut() -> StreamCut:
    return StreamCut("The answer was cut: the stream ended without its end.")


def _request(ask: Ask, prompt: int) -> GenerateRequest:
    # Routers remember requests by their id, so each of several prompts has its own.
    request_id = ask.request_id if len(ask.generations) == 1 else f"{ask.request_id}-{prompt}"
    context = RequestContext(request_id=request_id, tenant=ask.caller.tenant, user=ask.user)
    return GenerateRequest(context=context, generation=ask.generations[prompt])
