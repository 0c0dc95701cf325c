"""Sees a request through: ask the router, hold it to the stream-ending contract, count the usage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from gateway.core.keys import Caller
from gateway.core.ports import Router
from gateway.core.request_usage import RequestUsage
from headrace.common.v1.generation_pb2 import Generation, RequestContext
from headrace.router.v1.router_pb2 import DELIVERY_STREAMED, DELIVERY_WHOLE, GenerateRequest, GenerateResponse
from mesh.clock import Clock, Deadline
from mesh.errors import MeshError, StreamCut

# Messages of several prompts that wait for the reader; the routers' streams are held back beyond it.
_WAITING: Final = 16


@dataclass(frozen=True, slots=True)
class AdmittedRequest:
    """An admitted request: one generation for each prompt, mostly one."""

    caller: Caller
    request_id: str
    user: str
    generations: Sequence[Generation]
    deadline: Deadline
    # Whether the caller sees nothing of the answer before all of it is there.
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the answer to the prompt of that number."""

    prompt: int
    message: GenerateResponse


class RequestPipeline:
    """The order in which the mesh's services are asked."""

    def __init__(self, router: Router, clock: Clock) -> None:
        self._router = router
        self._clock = clock

    async def answer(self, admitted: AdmittedRequest, usage_totals: RequestUsage) -> AsyncGenerator[Chunk, None]:
        """The answer in pieces; `usage_totals.complete` is set with the last one, when every choice has ended.

        Raises MeshError before that: StreamCut where a router's stream ended without its end. Closing the iterator
        cancels what is under way at the router; iterating on after the last piece only waits for the calls to end.
        """
        started = self._clock.monotonic()
        chunks = (
            self._one(admitted, 0, usage_totals)
            if len(admitted.generations) == 1
            else self._many(admitted, usage_totals)
        )
        unended = len(admitted.generations)
        asked = started
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    now = self._clock.monotonic()
                    usage_totals.waited_s += now - asked
                    if usage_totals.first_s is None:
                        usage_totals.first_s = now - started
                    unended -= chunk.message.HasField("summary")
                    usage_totals.complete = unended == 0
                    yield chunk
                    asked = self._clock.monotonic()
        except MeshError:
            usage_totals.waited_s += self._clock.monotonic() - asked
            raise

    async def _one(
        self, admitted: AdmittedRequest, prompt: int, usage_totals: RequestUsage
    ) -> AsyncGenerator[Chunk, None]:
        generation = admitted.generations[prompt]
        call = self._router.generate(_request(admitted, prompt), admitted.deadline.left())
        unfinished = max(1, generation.sampling.n)
        ended = False
        try:
            async with aclosing(call.messages()) as messages:
                async for message in messages:
                    if message.HasField("progress"):
                        # The router is told that the node waits, and nobody else needs to be.
                        continue
                    usage_totals.add(prompt, message)
                    for delta in message.deltas:
                        unfinished -= delta.finish_reason != 0
                    ended = message.HasField("summary")
                    if ended and unfinished > 0:
                        raise _cut()
                    yield Chunk(prompt, message)
        except MeshError:
            # Nothing that comes after the summary takes the answer back.
            if not ended or unfinished > 0:
                raise
        finally:
            if call.disclosure is not None:
                usage_totals.disclosures[prompt] = call.disclosure
        if not ended:
            raise _cut()

    async def _many(self, admitted: AdmittedRequest, usage_totals: RequestUsage) -> AsyncGenerator[Chunk, None]:
        """All prompts at the same time; the first failure ends the others."""
        queue: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue(_WAITING)

        async def feed(prompt: int) -> None:
            # Cancelled, it says nothing more: nobody would take it out of the queue.
            try:
                async with aclosing(self._one(admitted, prompt, usage_totals)) as chunks:
                    async for chunk in chunks:
                        await queue.put(chunk)
            except Exception as error:
                await queue.put(error)
            else:
                await queue.put(None)

        tasks = [asyncio.create_task(feed(prompt)) for prompt in range(len(admitted.generations))]
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


def _request(admitted: AdmittedRequest, prompt: int) -> GenerateRequest:
    # Routers remember requests by their id, so each of several prompts has its own.
    request_id = admitted.request_id if len(admitted.generations) == 1 else f"{admitted.request_id}-{prompt}"
    context = RequestContext(request_id=request_id, tenant=admitted.caller.tenant, user=admitted.user)
    delivery = DELIVERY_WHOLE if admitted.whole else DELIVERY_STREAMED
    return GenerateRequest(context=context, generation=admitted.generations[prompt], delivery=delivery)
