"""Calls over one stream, against a real server: whatever a call of its own does, these do too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc
import pytest

from headrace.common.v1 import generation_pb2 as common
from headrace.inference.v1 import inference_pb2 as pb
from headrace.inference.v1 import inference_pb2_grpc
from headrace.mesh.v1 import mux_pb2_grpc
from mesh import telemetry
from mesh.channel import open_channel
from mesh.errors import ResourceExhausted, from_rpc_error
from mesh.health import Readiness
from mesh.lifecycle import ProcessConfig, Service, State
from mesh.mux import MuxChannel
from mesh.server import Server
from tests.ports import free_ports

TIMEOUT = 60.0


class Probe(inference_pb2_grpc.InferenceServicer):
    """Does what the request's model says."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.active = 0
        self.sent = 0
        self.metadata: list[dict[str, str]] = []
        self.left: list[float] = []

    async def Tokenize(self, request, context):
        self.metadata.append(dict(context.invocation_metadata()))
        self.left.append(context.time_remaining())
        if request.generation.model == "busy":
            raise ResourceExhausted("full", reason="QUEUE_FULL", retry_after_s=1.5, metadata={"queue": "7"})
        return pb.TokenizeResponse(token_ids=[len(request.generation.prompt.text)])

    async def Generate(self, request, context) -> AsyncIterator[pb.GenerateResponse]:
        self.active += 1
        context.add_done_callback(lambda _: self._over())
        context.set_trailing_metadata((("x-end-bin", b"\x00end"),))
        model = request.generation.model
        if model == "large":
            yield _text("x" * 5_000_000)
        while model == "flood":
            self.sent += 1
            yield _text("x" * 10_000)
        yield _text("first")
        if model in ("held", "pieces"):
            await self.release.wait()
        for _ in range(20 if model == "pieces" else 0):
            yield _text("piece")
        yield _text("last")

    def _over(self) -> None:
        self.active -= 1


def _text(text: str) -> pb.GenerateResponse:
    return pb.GenerateResponse(deltas=[common.ChoiceDelta(text=text)])


def ask(model: str = "", prompt: str = "") -> pb.GenerateRequest:
    request = pb.GenerateRequest()
    request.generation.model = model
    request.generation.prompt.text = prompt
    return request


async def until(holds: Callable[[], bool], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.002)


async def texts(call) -> list[str]:
    return [message.deltas[0].text async for message in call]


@dataclass
class Running:
    service: Service
    probe: Probe
    mux: MuxChannel
    stub: inference_pb2_grpc.InferenceStub
    task: asyncio.Task[int]


@contextlib.asynccontextmanager
async def running(carries: Callable[[], bool] = lambda: True, address: str = "127.0.0.1:0") -> AsyncIterator[Running]:
    """A server, and a channel whose stream is up unless it may not be."""
    service, probe = Service(ProcessConfig(listen=address, drain_delay_s=0.0, drain_deadline_s=20.0), ()), Probe()
    inference_pb2_grpc.add_InferenceServicer_to_server(probe, service.server.grpc)
    task = asyncio.create_task(service.run())
    await until(lambda: service.state is not State.STARTING or task.done())
    mux = MuxChannel(open_channel(f"127.0.0.1:{service.server.port}"), carries)
    stub = inference_pb2_grpc.InferenceStub(mux)
    try:
        if carries():
            # Asked again and again: what wants the stream to be up makes calls, and each of those asks.
            await until(lambda: mux.connect() or mux.up)
        yield Running(service, probe, mux, stub, task)
    finally:
        probe.release.set()
        await mux.close()
        await mux.channel.close()
        service.stop()
        await task


async def test_a_call_is_what_it_would_be_by_itself() -> None:
    async with running() as it:
        request = pb.TokenizeRequest(generation=ask(prompt="abc").generation)
        metadata = (("x-request-id", "mine"), (telemetry.TENANT_KEY, "t"))
        answer = await it.stub.Tokenize(request, timeout=TIMEOUT, metadata=metadata)
        assert list(answer.token_ids) == [3]
        assert it.probe.metadata[0] == {"x-request-id": "mine", telemetry.TENANT_KEY: "t"}
        assert TIMEOUT - 20 < it.probe.left[0] <= TIMEOUT
        call = it.stub.Generate(ask(), timeout=TIMEOUT)
        assert it.mux.open_calls == 1, "it went over the stream"
        assert await texts(call) == ["first", "last"]
        assert dict(await call.trailing_metadata()) == {"x-end-bin": b"\x00end"}
        assert await call.code() is grpc.StatusCode.OK
        await until(lambda: it.probe.active == 0 and it.mux.open_calls == 0)


async def test_errors_arrive_typed() -> None:
    async with running() as it:
        request = pb.TokenizeRequest(generation=ask("busy").generation)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await it.stub.Tokenize(request, timeout=TIMEOUT)
        error = from_rpc_error(caught.value)
        assert isinstance(error, ResourceExhausted)
        assert (error.reason, error.retry_after_s, error.metadata) == ("QUEUE_FULL", 1.5, {"queue": "7"})
        unknown = it.mux.unary_unary("/no.Such/Method", pb.TokenizeRequest.SerializeToString, bytes)
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await unknown(pb.TokenizeRequest(), timeout=TIMEOUT)
        assert missing.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_callers_get_their_own_answers() -> None:
    async with running() as it:
        questions = [pb.TokenizeRequest(generation=ask(prompt="x" * i).generation) for i in range(200)]
        answers = await asyncio.gather(*(it.stub.Tokenize(question, timeout=TIMEOUT) for question in questions))
        assert [list(answer.token_ids) for answer in answers] == [[i] for i in range(200)]


async def test_the_deadline_ends_a_call_at_both_ends() -> None:
    async with running() as it:
        call = it.stub.Generate(ask("held"), timeout=1.0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while True:
                assert (await call.read()).deltas[0].text == "first"
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: it.probe.active == 0 and it.mux.open_calls == 0)


@pytest.mark.parametrize("model", ["held", "flood"])
async def test_cancelling_frees_the_handler_whatever_it_waits_for(model: str) -> None:
    async with running() as it:
        call = it.stub.Generate(ask(model), timeout=TIMEOUT)
        await call.read()
        assert call.cancel()
        await until(lambda: it.probe.active == 0)
        with pytest.raises(asyncio.CancelledError):
            await call.read()
        reader = asyncio.create_task(texts(it.stub.Generate(ask("held"), timeout=TIMEOUT)))
        await until(lambda: it.probe.active == 1)
        reader.cancel()
        await until(lambda: it.probe.active == 0)


async def test_who_does_not_read_holds_up_nobody_else() -> None:
    async with running() as it:
        slow = it.stub.Generate(ask("flood"), timeout=TIMEOUT)
        await slow.read()
        for _ in range(3):
            assert await texts(it.stub.Generate(ask(), timeout=TIMEOUT)) == ["first", "last"]
        # A window's worth was sent; the handler waits for the reader, not for the others.
        assert it.probe.sent <= 40
        for _ in range(100):
            await slow.read()
        assert it.probe.sent > 60
        slow.cancel()


async def test_large_messages_arrive_whole() -> None:
    async with running() as it:
        assert [len(text) for text in await texts(it.stub.Generate(ask("large"), timeout=TIMEOUT))] == [5_000_000, 5, 4]
        call = it.stub.Generate(ask(prompt="x" * 100_000), timeout=TIMEOUT)
        assert it.mux.open_calls == 0, "a large question is a call of its own"
        assert await texts(call) == ["first", "last"]


async def test_without_leave_every_call_is_its_own() -> None:
    faulted = True
    async with running(carries=lambda: not faulted) as it:
        assert await texts(it.stub.Generate(ask(), timeout=TIMEOUT)) == ["first", "last"]
        assert not it.mux.up
        faulted = False
        await it.stub.Tokenize(pb.TokenizeRequest(), timeout=TIMEOUT)
        await until(lambda: it.mux.up)
        held = it.stub.Generate(ask("held"), timeout=TIMEOUT)
        faulted = True
        direct = it.stub.Generate(ask(), timeout=TIMEOUT)
        assert it.mux.open_calls == 1, "a new call may not go over the stream; the one on it goes on"
        assert await texts(direct) == ["first", "last"]
        it.probe.release.set()
        assert await texts(held) == ["first", "last"]


async def test_a_drain_takes_no_new_calls_and_ends_the_old() -> None:
    async with running() as it:
        held = it.stub.Generate(ask("held"), timeout=TIMEOUT)
        await held.read()
        it.service.stop()
        await until(lambda: not it.mux.up)
        assert await texts(it.stub.Generate(ask(), timeout=TIMEOUT)) == ["first", "last"], "it is served all the same"
        it.probe.release.set()
        assert await texts(held) == ["last"]
        assert await asyncio.wait_for(it.task, TIMEOUT) == 0


async def test_a_drain_sends_all_of_the_last_answer() -> None:
    """Its handler is over, and with it the last call under way, while the end of what it said waits to be sent."""
    for _ in range(20):
        async with running() as it:
            held = it.stub.Generate(ask("pieces"), timeout=TIMEOUT)
            await held.read()
            it.service.stop()
            await until(lambda: not it.mux.up)
            it.probe.release.set()
            assert await texts(held) == ["piece"] * 20 + ["last"]


async def test_closing_lets_calls_end_also_when_the_peer_drains_already() -> None:
    async with running() as it:
        held = it.stub.Generate(ask("held"), timeout=TIMEOUT)
        await held.read()
        it.service.stop()
        await until(lambda: not it.mux.up)
        # What a snapshot without the peer leads to.
        closing = asyncio.create_task(it.mux.close(TIMEOUT))
        await asyncio.sleep(0)
        assert not closing.done()
        it.probe.release.set()
        assert await texts(held) == ["last"]
        await asyncio.wait_for(closing, TIMEOUT)


async def test_calls_fail_with_the_stream_and_go_on_with_the_next() -> None:
    address = f"127.0.0.1:{free_ports()}"
    async with running(address=address) as it:
        call = it.stub.Generate(ask("held"), timeout=TIMEOUT)
        await call.read()
        await it.service.server.grpc.stop(0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        await until(lambda: not it.mux.up)
        async with running(lambda: False, address):

            async def asked() -> bool:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await it.stub.Tokenize(pb.TokenizeRequest(), timeout=1.0)
                return it.mux.up

            async with asyncio.timeout(30):
                while not await asked():
                    await asyncio.sleep(0.01)
            assert await texts(it.stub.Generate(ask(), timeout=TIMEOUT)) == ["first", "last"]


async def test_a_peer_without_streams_is_called_directly() -> None:
    server, probe = grpc.aio.server(), Probe()
    inference_pb2_grpc.add_InferenceServicer_to_server(probe, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        mux = MuxChannel(channel)
        stub = inference_pb2_grpc.InferenceStub(mux)
        for _ in range(3):
            assert await texts(stub.Generate(ask(), timeout=TIMEOUT)) == ["first", "last"]
        assert not mux.up
        await mux.close()
    await server.stop(0)


async def test_the_stream_itself_is_no_call_in_flight() -> None:
    server = Server("127.0.0.1:0", Readiness(), ())
    async with open_channel(f"127.0.0.1:{await server.start()}") as channel:
        call = mux_pb2_grpc.MuxStub(channel).Carry()
        await call.read()
        assert server.calls.inflight == 0
        assert await asyncio.wait_for(server.finish(100.0), 30) == 0
