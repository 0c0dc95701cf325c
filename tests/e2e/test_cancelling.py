"""A client that goes away frees its slot in the node at once; a deadline that passes is an error of its own kind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest
from google.protobuf import duration_pb2

from headrace.inference.v1 import inference_pb2, inference_pb2_grpc
from mesh.channel import open_channel
from tests.e2e.mesh_under_test import Mesh

_REPORT_EVERY = duration_pb2.Duration(nanos=10_000_000)
_LONG = [{"role": "user", "content": "Count from one to one thousand, in words."}]


@asynccontextmanager
async def load_of(mesh: Mesh, service: str) -> AsyncIterator[asyncio.Queue[tuple[float, int]]]:
    """How many requests the service's first node runs, with the time of each report."""
    reports: asyncio.Queue[tuple[float, int]] = asyncio.Queue()
    async with open_channel(f"127.0.0.1:{mesh.ports[service]}") as channel:
        watch = inference_pb2_grpc.InferenceStub(channel).WatchLoad(
            inference_pb2.WatchLoadRequest(interval=_REPORT_EVERY), timeout=60
        )

        async def follow() -> None:
            async for report in watch:
                await reports.put((time.monotonic(), report.running))

        task = asyncio.create_task(follow())
        try:
            yield reports
        finally:
            watch.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until_running(reports: asyncio.Queue[tuple[float, int]], count: int) -> float:
    """When the node was first seen to run so many requests."""
    async with asyncio.timeout(20):
        while True:
            at, running = await reports.get()
            if running == count:
                return at


async def test_a_client_that_disconnects_frees_its_slot_within_a_quarter_of_a_second(
    mesh: Mesh, client: openai.AsyncOpenAI
) -> None:
    """The engine is the static one: a model adds its own step, which the node's tests look at."""
    async with load_of(mesh, "alone") as reports:
        await until_running(reports, 0)
        stream = await client.chat.completions.create(model="alone", messages=_LONG, stream=True)
        await anext(aiter(stream))
        await until_running(reports, 1)
        await stream.close()
        left = time.monotonic()
        assert await until_running(reports, 0) - left < 0.25


async def test_a_client_that_disconnects_before_the_answer_frees_its_slot_too(
    mesh: Mesh, client: openai.AsyncOpenAI
) -> None:
    async with load_of(mesh, "alone") as reports:
        await until_running(reports, 0)
        asking = asyncio.create_task(client.chat.completions.create(model="alone", messages=_LONG))
        await until_running(reports, 1)
        asking.cancel()
        left = time.monotonic()
        assert await until_running(reports, 0) - left < 0.25
        await asyncio.gather(asking, return_exceptions=True)


async def test_a_deadline_that_passes_is_a_typed_error_and_frees_the_slot(
    mesh: Mesh, client: openai.AsyncOpenAI
) -> None:
    async with load_of(mesh, "alone") as reports:
        await until_running(reports, 0)
        started = time.monotonic()
        with pytest.raises(openai.APIStatusError) as late:
            await client.chat.completions.create(
                model="alone", messages=_LONG, extra_headers={"x-headrace-timeout": "0.5"}
            )
        assert time.monotonic() - started < 1.0
        assert late.value.status_code == 504
        assert late.value.code == "deadline_exceeded"
        # It was running in the meantime.
        await until_running(reports, 1)
        assert await until_running(reports, 0) - started < 1.0


async def test_a_deadline_that_passes_in_a_stream_ends_it_with_a_typed_error(client: openai.AsyncOpenAI) -> None:
    text = ""
    with pytest.raises(openai.APIError) as late:
        async for chunk in await client.chat.completions.create(
            model="alone", messages=_LONG, stream=True, extra_headers={"x-headrace-timeout": "0.5"}
        ):
            text += chunk.choices[0].delta.content or ""
    assert text
    assert late.value.code == "deadline_exceeded"
