"""Channels to other services: how long connecting may take."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.channel import open_channel
from mesh.health import Readiness
from mesh.server import Server


@contextlib.asynccontextmanager
async def far_away(port: int, seconds: float) -> AsyncIterator[int]:
    """A port that leads to `port`, whose first word takes so long."""
    tasks: set[asyncio.Task[None]] = set()

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, seconds: float) -> None:
        with contextlib.closing(target):
            while data := await source.read(65536):
                await asyncio.sleep(seconds)
                seconds = 0.0
                target.write(data)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_there, to_there = await asyncio.open_connection("127.0.0.1", port)
        for way in (pass_on(reader, to_there, 0.0), pass_on(from_there, writer, seconds)):
            tasks.add(asyncio.create_task(way))

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_connection_may_take_its_time() -> None:
    """As over a long way, or between processes that compete for a processor: a call waits for it and is not refused."""
    server = Server("127.0.0.1:0", Readiness(), ())
    port = await server.start()
    try:
        async with far_away(port, 0.7) as there, open_channel(f"127.0.0.1:{there}") as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
            assert answer.status
    finally:
        await server.grpc.stop(0)
