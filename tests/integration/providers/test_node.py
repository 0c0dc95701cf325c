"""A whole inference node in front of a provider, over real gRPC."""

from __future__ import annotations

import grpc
import pytest

from headrace.common.v1 import generation_pb2 as common
from headrace.inference.v1 import inference_pb2 as pb
from headrace.inference.v1.inference_pb2_grpc import InferenceStub
from mesh.channel import open_channel
from mesh.errors import Outcome, from_rpc_error
from ops.drills.provider.app import ProviderOptions
from ops.drills.provider.faults import Fault, Kind
from tests.integration.providers.nodes import provider_node
from tests.unit.inference.providers.asking import USER, chat_request


async def test_a_provider_is_a_node_like_any_other() -> None:
    """It says what it serves, and answers."""
    async with (
        provider_node("remote", ProviderOptions(answer_tokens=6)) as node,
        open_channel(node.address) as channel,
    ):
        stub = InferenceStub(channel)
        card = (await stub.Describe(pb.DescribeRequest())).models[0]
        assert (card.name, card.engine, card.revision) == ("remote", "openai", "demo")
        assert card.capabilities.tools
        assert not card.capabilities.resume
        messages = [message async for message in stub.Generate(_asked())]
        deltas = [delta for message in messages for delta in message.deltas]
        assert len("".join(delta.text for delta in deltas).split()) == 6
        assert deltas[-1].finish_reason == common.FINISH_REASON_STOP
        assert messages[-1].summary.model == "remote"


async def test_a_stream_that_falls_silent_is_told_as_cut() -> None:
    """After the gap that the node is set to."""
    async with (
        provider_node("remote", ProviderOptions(answer_tokens=6), GAP_S="0.3") as node,
        open_channel(node.address) as channel,
    ):
        await node.provider.set_faults([Fault(Kind.STALL, after=3)])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [message async for message in InferenceStub(channel).Generate(_asked())]
        error = from_rpc_error(caught.value)
        assert (error.outcome, error.reason) == (Outcome.MIDSTREAM_FAULT, "GAP_TIMEOUT")


def _asked() -> pb.GenerateRequest:
    asked = pb.GenerateRequest(generation=chat_request(USER).generation)
    asked.generation.model = "remote"
    return asked
