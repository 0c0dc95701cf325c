"""The client: which replica is asked and how, what is counted, and what a unary call goes through. Real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import prometheus_client
import pytest

from headrace.control.v1 import control_pb2
from headrace.router.v1 import router_pb2
from headrace.router.v1.router_pb2_grpc import RouterStub
from mesh import telemetry
from mesh.client import Connection, ServiceClient
from mesh.discovery import SnapshotWatcher
from mesh.errors import MeshError, ResourceExhausted, Unavailable
from mesh.resilience import BreakerPolicy, RetryPolicy
from tests.fakes.control import FakeControl
from tests.fakes.router import Act, FakeRouter
from tests.integration.gateway.harness import until


@contextlib.asynccontextmanager
async def surroundings(count: int) -> AsyncIterator[tuple[ServiceClient, FakeControl, dict[str, FakeRouter]]]:
    """ServiceClient in the snapshot, and what chooses among them, once a stream to each is up."""
    control, fakes = FakeControl(), {f"router-{i}": FakeRouter() for i in range(count)}
    await control.start()
    for fake in fakes.values():
        await fake.start()
    control.publish({"router": {name: fake.address for name, fake in fakes.items()}})
    policies = {"retry": RetryPolicy(first_pause_s=0.001, max_pause_s=0.002), "breaker": BreakerPolicy(failures=2)}
    routers = ServiceClient("xds:///router", dial="address", **policies)
    watcher = SnapshotWatcher(control.address)
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


async def ask(routers: ServiceClient) -> None:
    request = router_pb2.GenerateRequest()
    request.context.tenant, request.generation.model = "t", "fake-model"
    async for _ in routers.next().stub(RouterStub).Generate(request, timeout=60.0):
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
        calls = [routers.next().stub(RouterStub).Generate(request, timeout=60.0) for _ in range(2)]
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
        await until(lambda: routers.next() is routers.all)
        control.publish(there)
        await until(lambda: routers.next() is not routers.all)
        await ask(routers)
        assert len(fakes["router-0"].requests) == 1


GENERATE, LIST_MODELS = "/headrace.router.v1.Router/Generate", "/headrace.router.v1.Router/ListModels"


def counted(method: str, code: str) -> float:
    labels = {"side": "client", "method": method, "code": code}
    return prometheus_client.REGISTRY.get_sample_value("headrace_rpc_seconds_count", labels) or 0.0


def generation(model: str = "fake-model") -> router_pb2.GenerateRequest:
    request = router_pb2.GenerateRequest()
    request.context.tenant, request.generation.model = "t", model
    return request


@pytest.mark.parametrize("carried", [True, False])
async def test_every_call_is_counted_once_with_its_status_and_carries_the_trace(carried: bool) -> None:
    fake = FakeRouter()
    connection = Connection(await fake.start(), carries=lambda: carried)
    scope = telemetry.enter_scope("mine-1", None)
    codes = ("OK", "NOT_FOUND", "CANCELLED", "DEADLINE_EXCEEDED")
    before = {code: counted(GENERATE, code) for code in codes} | {"models": counted(LIST_MODELS, "OK")}
    try:
        stub = connection.stub(RouterStub)
        if carried:
            connection.connect()
            await until(lambda: connection.up)
        assert [m async for m in stub.Generate(generation(), timeout=60.0)]
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Generate(generation("nobody"), timeout=60.0).read()
        fake.default = Act(after=1, then="stall")
        held = stub.Generate(generation(), timeout=60.0)
        await held.read()
        held.cancel()
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in stub.Generate(generation(), timeout=0.2):
                pass
        await stub.ListModels(router_pb2.ListModelsRequest(), timeout=60.0)
        await until(lambda: all(counted(GENERATE, code) == before[code] + 1 for code in codes))
        assert counted(LIST_MODELS, "OK") == before["models"] + 1
        assert {seen["x-request-id"] for seen in fake.metadata} == {"mine-1"}
        assert {seen["traceparent"][3:35] for seen in fake.metadata} == {scope.trace_id}
    finally:
        await connection.close()
        await fake.stop()


async def models(stub, timeout_s: float) -> int:
    return len((await stub.ListModels(router_pb2.ListModelsRequest(), timeout=timeout_s)).models)


def failing(fake: FakeRouter, *errors: MeshError) -> list[MeshError]:
    """Make a router's ListModels fail so, call by call; what is left of it."""
    left = list(errors)

    async def list_models(request, context):
        if left:
            raise left.pop(0)
        return router_pb2.ListModelsResponse(models=fake.models)

    fake.ListModels = list_models
    return left


@contextlib.asynccontextmanager
async def two_with(first: list[MeshError]) -> AsyncIterator[tuple[ServiceClient, dict[str, list[MeshError]]]]:
    """Two routers, the first of which fails so."""
    control, fakes = FakeControl(), {f"router-{i}": FakeRouter() for i in range(2)}
    left = {"router-0": failing(fakes["router-0"], *first), "router-1": failing(fakes["router-1"])}
    await control.start()
    for fake in fakes.values():
        await fake.start()
    control.publish({"router": {name: fake.address for name, fake in fakes.items()}})
    client = ServiceClient(
        "xds:///router",
        dial="address",
        retry=RetryPolicy(first_pause_s=0.001, max_pause_s=0.002),
        breaker=BreakerPolicy(failures=2, reset_s=600.0, max_reset_s=600.0),
    )
    watcher = SnapshotWatcher(control.address)
    tasks = [asyncio.create_task(work) for work in (watcher.run(), client.follow(watcher))]
    try:
        await until(lambda: client.up == 2)
        yield client, left
    finally:
        for task in tasks:
            task.cancel()
        await client.close()
        for fake in fakes.values():
            await fake.stop()
        await control.stop()


async def test_a_unary_call_that_fails_is_made_again_at_the_next_replica() -> None:
    async with two_with([Unavailable("down", reason="TEST")] * 3) as (client, left):
        for _ in range(20):
            assert await client.call(RouterStub, models, 60.0, safe=True) == 2
        # Two faults opened that replica's breaker: it was not asked a third time, and nobody noticed.
        assert len(left["router-0"]) == 1


async def test_a_call_that_may_not_be_made_again_is_not() -> None:
    async with two_with([Unavailable("down", reason="TEST")]) as (client, _):
        results = await asyncio.gather(
            *(client.call(RouterStub, models, 60.0, safe=False) for _ in range(2)), return_exceptions=True
        )
        assert sorted(type(result) for result in results if result != 2) == [Unavailable]


async def test_a_refusal_for_its_size_is_the_callers_and_moves_no_breaker() -> None:
    refusals: list[MeshError] = [ResourceExhausted("full", reason="FULL", retry_after_s=600.0)] * 2
    async with two_with(refusals) as (client, left):
        for _ in range(2):
            with contextlib.suppress(ResourceExhausted):
                await client.call(RouterStub, models, 60.0, safe=True)
        assert await client.call(RouterStub, models, 60.0, safe=True) == 2
        # It asked to be left alone, and is.
        assert len(left["router-0"]) == 1
