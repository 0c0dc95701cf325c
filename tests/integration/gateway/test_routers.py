"""Which router is asked, with several routers over real gRPC and a scripted control plane."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from gateway.adapters.routers import Routers
from headrace.control.v1 import control_pb2
from headrace.router.v1 import router_pb2
from mesh.discovery import SnapshotWatcher
from tests.fakes.control import FakeControl
from tests.fakes.router import FakeRouter
from tests.integration.gateway.harness import until


@contextlib.asynccontextmanager
async def surroundings(count: int) -> AsyncIterator[tuple[Routers, FakeControl, dict[str, FakeRouter]]]:
    """Routers in the snapshot, and what chooses among them, once a stream to each is up."""
    control, fakes = FakeControl(), {f"router-{i}": FakeRouter() for i in range(count)}
    await control.start()
    for fake in fakes.values():
        await fake.start()
    control.publish({"router": {name: fake.address for name, fake in fakes.items()}})
    routers, watcher = Routers("xds:///router", dial="address"), SnapshotWatcher(control.address)
    tasks = [asyncio.create_task(work) for work in (watcher.run(), routers.follow(watcher))]
    try:
        await until(lambda: routers.up == count)
        yield routers, control, fakes
    finally:
        for task in tasks:
            task.cancel()
        await routers.close()
        for fake in fakes.values():
            await fake.stop()
        await control.stop()


async def ask(routers: Routers) -> None:
    request = router_pb2.GenerateRequest()
    request.context.tenant, request.generation.model = "t", "fake-model"
    async for _ in routers.next().Generate(request, timeout=60.0):
        pass


async def test_calls_go_over_the_streams_in_turn() -> None:
    async with surroundings(2) as (routers, _, fakes):
        for _ in range(6):
            await ask(routers)
        assert {name: len(fake.requests) for name, fake in fakes.items()} == {"router-0": 3, "router-1": 3}


async def test_a_router_that_is_gone_is_not_asked_again() -> None:
    async with surroundings(2) as (routers, _, fakes):
        await fakes["router-1"].stop()
        await until(lambda: routers.up == 1)
        for _ in range(4):
            await ask(routers)
        assert len(fakes["router-0"].requests) == 4


async def test_a_router_that_leaves_the_snapshot_ends_what_it_has() -> None:
    async with surroundings(2) as (routers, control, fakes):
        request = router_pb2.GenerateRequest()
        request.context.tenant, request.generation.model = "t", "fake-model"
        calls = [routers.next().Generate(request, timeout=60.0) for _ in range(2)]
        control.publish({"router": {"router-0": fakes["router-0"].address}})
        await until(lambda: routers.up == 1)
        await ask(routers)
        assert len(fakes["router-0"].requests) >= 2
        for call in calls:
            assert [message async for message in call][-1].HasField("summary")
        assert len(fakes["router-1"].requests) == 1


async def test_a_fault_on_the_routers_makes_every_call_the_data_planes() -> None:
    async with surroundings(1) as (routers, control, fakes):
        there = {"router": {name: fake.address for name, fake in fakes.items()}}
        control.publish(there, faults=[control_pb2.Fault(service="router", abort_code=14)])
        await until(lambda: routers.next() is routers.all.stub)
        control.publish(there)
        await until(lambda: routers.next() is not routers.all.stub)
        await ask(routers)
        assert len(fakes["router-0"].requests) == 1
