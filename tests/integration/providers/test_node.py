"""A whole inference node in front of a provider, over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest

from headrace.common.v1 import generation_pb2 as common
from headrace.inference.v1 import inference_pb2 as pb
from headrace.inference.v1.inference_pb2_grpc import InferenceStub
from inference.app import build
from inference.config import config_type
from mesh.channel import open_channel
from mesh.config import load
from mesh.errors import Outcome, from_rpc_error
from ops.drills.provider.app import Provider, ProviderOptions
from ops.drills.provider.faults import Fault, Kind
from tests.unit.inference.providers.asking import USER, chat_request

_PREFIX = "HEADRACE_INFERENCE_"


@contextlib.asynccontextmanager
async def _node(provider: Provider) -> AsyncIterator[InferenceStub]:
    env = {
        f"{_PREFIX}ENGINE": "openai",
        f"{_PREFIX}MODEL": "remote",
        f"{_PREFIX}UPSTREAM_MODEL": "demo",
        f"{_PREFIX}BASE_URL": f"http://127.0.0.1:{provider.port}/v1",
        f"{_PREFIX}GAP_S": "0.3",
    }
    service = await build(load(config_type(env), _PREFIX, env))
    port = await service.server.start()
    while "model_load" in service.readiness.pending:
        await asyncio.sleep(0.005)
    channel = open_channel(f"127.0.0.1:{port}")
    try:
        yield InferenceStub(channel)
    finally:
        await channel.close()
        service.stop()
        await service._close()


async def test_a_provider_is_a_node_like_any_other() -> None:
    """It says what it serves, answers, and tells a cut stream as one."""
    provider = Provider(ProviderOptions(answer_tokens=6))
    await provider.start()
    try:
        async with _node(provider) as stub:
            card = (await stub.Describe(pb.DescribeRequest())).models[0]
            assert (card.name, card.engine, card.revision) == ("remote", "openai", "demo")
            assert card.capabilities.tools
            assert not card.capabilities.resume
            asked = pb.GenerateRequest(generation=chat_request(USER).generation)
            asked.generation.model = "remote"
            messages = [message async for message in stub.Generate(asked)]
            deltas = [delta for message in messages for delta in message.deltas]
            assert len("".join(delta.text for delta in deltas).split()) == 6
            assert deltas[-1].finish_reason == common.FINISH_REASON_STOP
            assert messages[-1].summary.model == "remote"
            await provider.set_faults([Fault(Kind.STALL, after=3)])
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                [message async for message in stub.Generate(asked)]
            error = from_rpc_error(caught.value)
            assert (error.outcome, error.reason) == (Outcome.MIDSTREAM_FAULT, "GAP_TIMEOUT")
    finally:
        await provider.close()
