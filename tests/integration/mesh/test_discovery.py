"""SnapshotWatcher against a scripted control plane over real gRPC."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest

from headrace.control.v1 import control_pb2 as pb
from headrace.control.v1 import control_pb2_grpc
from mesh.discovery import SnapshotWatcher
from tests.ports import free_ports


class ScriptedControl(control_pb2_grpc.ControlServicer):
    """Sends the snapshots that a test puts in; None ends the stream."""

    def __init__(self) -> None:
        self.script: asyncio.Queue[str | None] = asyncio.Queue()

    async def WatchSnapshot(self, request, context):
        while (version := await self.script.get()) is not None:
            yield pb.WatchSnapshotResponse(snapshot=pb.Snapshot(version=version))


@contextlib.asynccontextmanager
async def serving(control: ScriptedControl, port: int = 0) -> AsyncIterator[int]:
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    control_pb2_grpc.add_ControlServicer_to_server(control, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def watching(port: int) -> AsyncIterator[SnapshotWatcher]:
    watcher = SnapshotWatcher(f"127.0.0.1:{port}")
    task = asyncio.create_task(watcher.run())
    try:
        yield watcher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_changes_wake_those_who_wait_and_equal_versions_do_not() -> None:
    control = ScriptedControl()
    async with serving(control) as port, watching(port) as watcher, asyncio.timeout(30):
        assert watcher.snapshot is None
        control.script.put_nowait("a")
        assert (await watcher.changed()).version == "a"
        assert watcher.connected
        waiting = asyncio.create_task(watcher.changed("a"))
        control.script.put_nowait("a")
        control.script.put_nowait("b")
        assert (await waiting).version == "b"
        assert (await watcher.changed("a")).version == "b"


async def test_a_lost_stream_is_opened_again() -> None:
    control = ScriptedControl()
    async with serving(control) as port, watching(port) as watcher, asyncio.timeout(30):
        control.script.put_nowait("a")
        await watcher.changed()
        control.script.put_nowait(None)
        control.script.put_nowait("b")
        assert (await watcher.changed("a")).version == "b"


async def test_the_last_good_snapshot_outlives_the_control_plane() -> None:
    control = ScriptedControl()
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(60):
        first = contextlib.AsyncExitStack()
        port = await first.enter_async_context(serving(control, free_ports()))
        watcher = await stack.enter_async_context(watching(port))
        control.script.put_nowait("a")
        await watcher.changed()
        await first.aclose()
        while watcher.connected:
            await asyncio.sleep(0.01)
        assert watcher.version == "a"
        again = ScriptedControl()
        again.script.put_nowait("b")
        await stack.enter_async_context(serving(again, port))
        assert (await watcher.changed("a")).version == "b"


async def test_a_slow_reader_skips_to_the_newest() -> None:
    control = ScriptedControl()
    async with serving(control) as port, watching(port) as watcher, asyncio.timeout(30):
        for version in "abc":
            control.script.put_nowait(version)
        await watcher.changed("a")
        while watcher.version != "c":
            await asyncio.sleep(0.001)
        updates = watcher.updates()
        assert (await anext(updates)).version == "c"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(updates), 0.05)
