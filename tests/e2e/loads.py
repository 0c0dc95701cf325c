"""How busy a node is, as it says itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from google.protobuf import duration_pb2

from headrace.inference.v1 import inference_pb2, inference_pb2_grpc
from mesh.channel import open_channel
from tests.e2e.mesh_under_test import Mesh

_REPORT_EVERY = duration_pb2.Duration(nanos=10_000_000)


@asynccontextmanager
async def load_of(mesh: Mesh, service: str, index: int = 0) -> AsyncIterator[asyncio.Queue[int]]:
    """How many requests one of the service's nodes runs, report by report."""
    reports: asyncio.Queue[int] = asyncio.Queue()
    async with open_channel(f"127.0.0.1:{mesh.ports[service] + index}") as channel:
        watch = inference_pb2_grpc.InferenceStub(channel).WatchLoad(
            inference_pb2.WatchLoadRequest(interval=_REPORT_EVERY), timeout=60
        )

        async def follow() -> None:
            async for report in watch:
                await reports.put(report.running)

        task = asyncio.create_task(follow())
        try:
            yield reports
        finally:
            watch.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until_running(reports: asyncio.Queue[int], count: int) -> None:
    """Return when the node was seen to run so many requests."""
    async with asyncio.timeout(20):
        while await reports.get() != count:
            pass


async def until_busy(reports: asyncio.Queue[int]) -> None:
    """Return when the node was seen to run anything."""
    async with asyncio.timeout(20):
        while await reports.get() == 0:
            pass
