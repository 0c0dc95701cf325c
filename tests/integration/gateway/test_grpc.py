"""headrace.gateway.v1 over gRPC: the same admission and the same answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from headrace.common.v1 import generation_pb2 as common
from headrace.gateway.v1 import gateway_pb2 as pb
from headrace.gateway.v1 import gateway_pb2_grpc
from mesh.channel import open_channel
from mesh.errors import (
    InvalidArgument,
    MeshError,
    NotFound,
    ResourceExhausted,
    StreamCut,
    Unauthenticated,
    from_rpc_error,
)
from tests.fakes.router import Act
from tests.integration.gateway.harness import KEY, PATIENCE_S, Running, gateway, until

AUTHORIZED = (("authorization", f"Bearer {KEY}"), ("x-request-id", "mine-1"))


@pytest.fixture
async def channel(running: Running) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(f"127.0.0.1:{running.service.server.port}") as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> gateway_pb2_grpc.GatewayStub:
    return gateway_pb2_grpc.GatewayStub(channel)


def request(**sampling: object) -> pb.GenerateRequest:
    made = pb.GenerateRequest(user="ann")
    made.generation.model = "fake-model"
    made.generation.prompt.chat.messages.add(role=3).content.add(text="hello")
    made.generation.sampling.CopyFrom(common.Sampling(**sampling))
    return made


async def failure(call: grpc.aio.UnaryStreamCall) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return from_rpc_error(caught.value)


async def test_an_answer_ends_in_its_summary(running: Running, stub: gateway_pb2_grpc.GatewayStub) -> None:
    messages = [m async for m in stub.Generate(request(seed=7), metadata=AUTHORIZED, timeout=90)]
    assert "".join(delta.text for message in messages for delta in message.deltas) == "Hello there"
    assert [message.request_id for message in messages] == ["mine-1"] + [""] * (len(messages) - 1)
    assert messages[-1].summary.usage.completion_tokens == 3
    assert messages[-1].disclosure.deployment == "dep"
    asked = running.router.requests[0]
    assert (asked.context.tenant, asked.context.user, asked.context.request_id) == ("tenant-1", "ann", "mine-1")
    assert asked.generation.sampling.seed == 7
    # gRPC rounds what is left of it.
    assert running.router.deadlines[0] == pytest.approx(90, abs=30)


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer nobody"),), (("authorization", "Basic x"),)])
async def test_a_key_is_needed(running: Running, stub: gateway_pb2_grpc.GatewayStub, metadata: tuple) -> None:
    assert isinstance(await failure(stub.Generate(request(), metadata=metadata)), Unauthenticated)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListModels(pb.ListModelsRequest(), metadata=metadata)
    assert isinstance(from_rpc_error(caught.value), Unauthenticated)
    assert running.router.requests == []


def without_prompt() -> pb.GenerateRequest:
    made = request()
    made.generation.ClearField("prompt")
    return made


def without_role() -> pb.GenerateRequest:
    made = request()
    made.generation.prompt.chat.messages[0].role = 0
    return made


def resumed() -> pb.GenerateRequest:
    made = request()
    made.generation.resume.add(index=0, token_ids=[1])
    return made


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (pb.GenerateRequest(), "generation.model"),
        (without_prompt(), "generation.prompt"),
        (without_role(), "generation.prompt.chat.messages[0].role"),
        (resumed(), "generation.resume"),
        (request(temperature=2.5), "generation.sampling.temperature"),
        (request(temperature=float("nan")), "generation.sampling.temperature"),
        (request(top_p=0), "generation.sampling.top_p"),
        (request(max_tokens=0), "generation.sampling.max_tokens"),
        (request(n=-1), "generation.sampling.n"),
        (request(top_logprobs=21), "generation.sampling.top_logprobs"),
        (request(stop=[""]), "generation.sampling.stop"),
        (request(logit_bias={1: 101}), "generation.sampling.logit_bias"),
    ],
)
async def test_what_is_wrong_is_named(
    running: Running, stub: gateway_pb2_grpc.GatewayStub, wrong: pb.GenerateRequest, field: str
) -> None:
    error = await failure(stub.Generate(wrong, metadata=AUTHORIZED))
    assert isinstance(error, InvalidArgument)
    assert error.field == field
    assert running.router.requests == []


async def test_the_routers_errors_pass_through(running: Running, stub: gateway_pb2_grpc.GatewayStub) -> None:
    unknown = request()
    unknown.generation.model = "nobody"
    assert isinstance(await failure(stub.Generate(unknown, metadata=AUTHORIZED)), NotFound)
    busy = ResourceExhausted("busy", reason="ALL_DEPLOYMENTS_BUSY", retry_after_s=1.5)
    running.router.acts.append(Act(after=0, error=busy))
    error = await failure(stub.Generate(request(), metadata=AUTHORIZED))
    assert (error.reason, error.retry_after_s) == ("ALL_DEPLOYMENTS_BUSY", pytest.approx(1.5))
    running.router.acts.append(Act(after=2, then="end"))
    assert isinstance(await failure(stub.Generate(request(), metadata=AUTHORIZED)), StreamCut)


@pytest.mark.parametrize(
    "act", [Act(after=1, then="stall"), Act(pieces=("x" * 1000,), then="flood")], ids=["idle", "full"]
)
async def test_a_client_that_cancels_frees_its_place(tmp_path: Path, act: Act) -> None:
    async with gateway(tmp_path, max_inflight=1) as running:
        running.router.acts.append(act)
        async with open_channel(f"127.0.0.1:{running.service.server.port}") as channel:
            stub = gateway_pb2_grpc.GatewayStub(channel)
            call = stub.Generate(request(), metadata=AUTHORIZED)
            assert (await call.read()).deltas
            call.cancel()
            await asyncio.wait_for(running.router.cancelled.wait(), PATIENCE_S)
            await until(lambda: running.router.active == 0)

            async def fits() -> bool:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    return [m async for m in stub.Generate(request(), metadata=AUTHORIZED)][-1].HasField("summary")
                return False

            # The router may hear of it before the gateway has given the place back.
            await until(fits)


async def test_models(stub: gateway_pb2_grpc.GatewayStub) -> None:
    models = (await stub.ListModels(pb.ListModelsRequest(), metadata=AUTHORIZED)).models
    assert [(model.name, model.context_length) for model in models] == [("fake-model", 4096), ("org/other", 0)]


async def test_health_and_reflection_need_no_key(channel: grpc.aio.Channel) -> None:
    health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]))
    answer = await call.read()
    assert "headrace.gateway.v1.Gateway" in {service.name for service in answer.list_services_response.service}
    call.cancel()
