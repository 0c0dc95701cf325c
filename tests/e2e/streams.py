"""Many live streams at once, and how each of them ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import openai

QUESTION = [{"role": "user", "content": "Say something long."}]


@dataclass
class Stream:
    """One stream: what came, and how it ended."""

    text: str = ""
    started: asyncio.Event = field(default_factory=asyncio.Event)
    finish_reason: str | None = None
    error: Exception | None = None


async def read(client: openai.AsyncOpenAI, model: str, stream: Stream) -> Stream:
    """Read one stream to its end."""
    try:
        answer = await client.chat.completions.create(model=model, messages=QUESTION, stream=True)
        async for chunk in answer:
            for choice in chunk.choices:
                stream.text += choice.delta.content or ""
                stream.finish_reason = choice.finish_reason or stream.finish_reason
                if choice.delta.content:
                    stream.started.set()
    except openai.OpenAIError as error:
        stream.error = error
    finally:
        stream.started.set()
    return stream


class Streams:
    """So many streams of one model, all under way."""

    def __init__(self, client: openai.AsyncOpenAI, model: str, count: int) -> None:
        self.all = [Stream() for _ in range(count)]
        self._tasks = [asyncio.create_task(read(client, model, stream)) for stream in self.all]

    async def under_way(self) -> None:
        """Return when each has brought its first token."""
        await asyncio.wait_for(asyncio.gather(*(stream.started.wait() for stream in self.all)), 20)

    async def end(self) -> list[Stream]:
        """Wait for the end of all."""
        await asyncio.wait_for(asyncio.gather(*self._tasks), 60)
        return self.all


@asynccontextmanager
async def asking(client: openai.AsyncOpenAI, model: str, callers: int) -> AsyncIterator[list[Stream]]:
    """So many callers who ask one question after the other while inside; leaving waits for their last answers."""
    streams: list[Stream] = []
    over = asyncio.Event()

    async def ask() -> None:
        while not over.is_set():
            streams.append(await read(client, model, Stream()))
            if streams[-1].error:
                return

    tasks = [asyncio.create_task(ask()) for _ in range(callers)]
    try:
        yield streams
    finally:
        over.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 60)


async def whole_answer(client: openai.AsyncOpenAI, model: str) -> str:
    """What an undisturbed stream brings: the static engine answers the same question with the same words."""
    return (await read(client, model, Stream())).text


def assert_whole(streams: list[Stream], text: str) -> None:
    """Every stream ended as if nothing had happened."""
    assert [stream.error for stream in streams if stream.error] == []
    assert {stream.finish_reason for stream in streams} == {"stop"}
    assert {stream.text for stream in streams} == {text}
