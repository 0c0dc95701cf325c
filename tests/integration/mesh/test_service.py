"""The process shell, over real gRPC on port 0: errors, scope, health, and the order of a drain."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.common.v1 import generation_pb2 as common
from headrace.inference.v1 import inference_pb2 as pb
from headrace.inference.v1 import inference_pb2_grpc
from mesh import telemetry
from mesh.channel import open_channel
from mesh.client import Connection
from mesh.errors import Internal, NotFound, ResourceExhausted, Unavailable, from_rpc_error
from mesh.lifecycle import ProcessConfig, Service, State
from mesh.tasks import TaskFailed


class Probe(inference_pb2_grpc.InferenceServicer):
    """A servicer whose calls do what a test says."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.scopes: list[telemetry.Scope | None] = []

    async def Describe(self, request, context):
        self.scopes.append(telemetry.current_scope())
        raise NotFound("no such model", field="model", reason="MODEL_NOT_FOUND")

    async def Tokenize(self, request, context):
        raise RuntimeError("a secret detail")

    async def Generate(self, request, context):
        yield pb.GenerateResponse()
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        yield pb.GenerateResponse()

    async def WatchLoad(self, request, context):
        yield pb.WatchLoadResponse(running=1)
        raise ResourceExhausted("queue full", retry_after_s=1.5)


@contextlib.asynccontextmanager
async def running(config: ProcessConfig) -> AsyncIterator[tuple[Service, Probe, grpc.aio.Channel, asyncio.Task[int]]]:
    service = Service(config, ("headrace.inference.v1.Inference",))
    probe = Probe()
    inference_pb2_grpc.add_InferenceServicer_to_server(probe, service.server.grpc)
    task = asyncio.create_task(service.run())
    while service.state is State.STARTING and not task.done():
        await asyncio.sleep(0.001)
    channel = open_channel(f"127.0.0.1:{service.server.port}")
    try:
        yield service, probe, channel, task
    finally:
        probe.release.set()
        service.stop()
        await task
        await channel.close()


CONFIG = ProcessConfig(drain_delay_s=0.0, drain_deadline_s=20.0)


async def test_errors_arrive_typed_and_defects_tell_nothing() -> None:
    async with running(CONFIG) as (_, _, channel, _):
        stub = inference_pb2_grpc.InferenceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as known:
            await stub.Describe(pb.DescribeRequest())
        error = from_rpc_error(known.value)
        assert isinstance(error, NotFound)
        assert (error.reason, error.field) == ("MODEL_NOT_FOUND", "model")

        with pytest.raises(grpc.aio.AioRpcError) as defect:
            await stub.Tokenize(pb.TokenizeRequest(), metadata=(("x-request-id", "req-7"),))
        hidden = from_rpc_error(defect.value)
        assert isinstance(hidden, Internal)
        assert "secret" not in hidden.message
        assert "req-7" in hidden.message

        got = []
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            async for response in stub.WatchLoad(pb.WatchLoadRequest()):
                got.append(response.running)
        assert got == [1]
        busy = from_rpc_error(cut.value)
        assert isinstance(busy, ResourceExhausted)
        assert busy.retry_after_s == pytest.approx(1.5)


async def test_the_scope_is_the_callers_or_made_up() -> None:
    async with running(CONFIG) as (_, probe, channel, _):
        stub = inference_pb2_grpc.InferenceStub(channel)
        trace = f"00-{'a' * 32}-{'b' * 16}-01"
        for metadata in ((("x-request-id", "req-1"), ("traceparent", trace)), ()):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Describe(pb.DescribeRequest(), metadata=metadata)
        first, second = probe.scopes
        assert first is not None
        assert second is not None
        assert (first.request_id, first.trace_id) == ("req-1", "a" * 32)
        assert second.request_id.startswith("req-")
        onward = dict(first.outgoing())
        assert onward["traceparent"][3:35] == "a" * 32
        assert onward["traceparent"] != trace


async def test_a_drain_says_not_serving_first_and_finishes_what_it_holds() -> None:
    async with running(CONFIG) as (service, probe, channel, task):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stream = inference_pb2_grpc.InferenceStub(channel).Generate(pb.GenerateRequest())
        await stream.read()
        await probe.entered.wait()
        service.stop()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not task.done()
        probe.release.set()
        assert await stream.read() is not grpc.aio.EOF
        assert await stream.read() is grpc.aio.EOF
        assert await task == 0


async def test_a_drain_cancels_stragglers_at_its_deadline() -> None:
    config = ProcessConfig(drain_delay_s=0.0, drain_deadline_s=0.05)
    async with running(config) as (service, probe, channel, task):
        stream = inference_pb2_grpc.InferenceStub(channel).Generate(pb.GenerateRequest())
        await stream.read()
        await probe.entered.wait()
        service.stop()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert isinstance(from_rpc_error(caught.value), Unavailable)
        await asyncio.wait_for(probe.cancelled.wait(), 30)
        assert await task == 0


async def test_a_failed_background_task_ends_the_process_with_an_error() -> None:
    async with running(CONFIG) as (service, _, _, task):

        async def fail() -> None:
            raise RuntimeError("the model is gone")

        service.background("engine", fail())
        assert await asyncio.wait_for(task, 30) == 70


async def test_a_background_task_that_merely_ends_is_noticed_too() -> None:
    async with running(CONFIG) as (service, _, _, task):
        assert await asyncio.wait_for(service.reached(State.READY), 30) is None

        async def end() -> None:
            return

        service.background("watcher", end())
        assert await asyncio.wait_for(task, 30) == 70
        assert service.state is State.FAILED
        with pytest.raises(TaskFailed, match="watcher: ended"):
            await service.reached(State.STOPPED)


async def test_a_task_may_end_once_the_process_drains() -> None:
    async with running(CONFIG) as (service, _, _, task):

        async def until_drained() -> None:
            await service.reached(State.DRAINING)

        service.background("front", until_drained())
        await asyncio.sleep(0)
        service.stop()
        assert await asyncio.wait_for(task, 30) == 0
        await service.reached(State.STOPPED)


async def test_a_second_sigterm_cuts_the_drain_short() -> None:
    async with running(ProcessConfig(drain_delay_s=0.0, drain_deadline_s=600.0)) as (service, probe, channel, task):
        stream = inference_pb2_grpc.InferenceStub(channel).Generate(pb.GenerateRequest())
        await stream.read()
        await probe.entered.wait()
        signal.raise_signal(signal.SIGTERM)
        await service.reached(State.DRAINING)
        await asyncio.sleep(0)
        assert not task.done()
        signal.raise_signal(signal.SIGTERM)
        assert await asyncio.wait_for(task, 60) == 143
        await asyncio.wait_for(probe.cancelled.wait(), 30)


class Flood(inference_pb2_grpc.InferenceServicer):
    """Sends without end, with nothing in it that could notice a caller who has gone."""

    def __init__(self) -> None:
        self.sent = 0
        self.closed = asyncio.Event()

    async def Generate(self, request, context):
        try:
            while True:
                self.sent += 1
                yield pb.GenerateResponse(deltas=[common.ChoiceDelta(text="x" * 100_000)])
        finally:
            await asyncio.sleep(0)
            self.closed.set()


@pytest.mark.parametrize("carried", [True, False])
async def test_a_stream_whose_caller_goes_is_closed_while_it_writes(carried: bool) -> None:
    """Not whenever the garbage collector comes by: what it holds would be held until then."""
    service, flood = Service(CONFIG, ("headrace.inference.v1.Inference",)), Flood()
    inference_pb2_grpc.add_InferenceServicer_to_server(flood, service.server.grpc)
    task = asyncio.create_task(service.run())
    await service.reached(State.READY)
    connection = Connection(f"127.0.0.1:{service.server.port}", carries=lambda: carried)
    gc.disable()
    try:
        async with asyncio.timeout(60):
            if carried:
                connection.connect()
                while not connection.up:
                    await asyncio.sleep(0.001)
            call = connection.stub(inference_pb2_grpc.InferenceStub).Generate(pb.GenerateRequest(), timeout=60.0)
            await call.read()
            # Until flow control holds it back in the middle of a write.
            sent = -1
            while flood.sent != sent:
                sent = flood.sent
                await asyncio.sleep(0.2)
            call.cancel()
            await flood.closed.wait()
            while service.server.calls.inflight:
                await asyncio.sleep(0.001)
    finally:
        gc.enable()
        service.stop()
        await task
        await connection.close()


async def test_readiness_names_what_is_pending() -> None:
    service = Service(ProcessConfig(drain_delay_s=0.0), (), blockers=("model_load",))
    task = asyncio.create_task(service.run())
    while service.state is State.STARTING:
        await asyncio.sleep(0.001)
    assert service.readiness.pending == ("model_load",)
    await service.readiness.clear("model_load")
    assert service.readiness.ready
    service.stop()
    assert await task == 0
    assert service.readiness.pending == ("draining",)
