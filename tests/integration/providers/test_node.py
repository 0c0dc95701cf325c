"""A whole inference node in front of a provider, over real gRPC."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from headrace.common.v1 import generation_pb2 as common
from headrace.inference.v1 import inference_pb2 as pb
from headrace.inference.v1.inference_pb2_grpc import InferenceStub
from mesh.channel import open_channel
from ops.drills.provider.app import ProviderOptions
from ops.drills.provider.faults import Fault, Kind
from tests.integration.providers.nodes import provider_node
from tests.integration.providers.serving import EVENTS, event, serving
from tests.integration.router.harness import until
from tests.unit.inference.providers.asking import USER, chat_request

# No bound of the answer itself is reached.
_UNBOUNDED = {"MAX_ANSWER_BYTES": str(1 << 30), "CONTEXT_LENGTH": str(1 << 24)}


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


async def test_a_stream_that_falls_silent_is_the_callers_to_give_up() -> None:
    """After the deadline that the caller set, and the provider's work ends with it."""
    async with (
        provider_node("remote", ProviderOptions(answer_tokens=6)) as node,
        open_channel(node.address) as channel,
    ):
        await node.provider.set_faults([Fault(Kind.STALL, after=3)])
        messages: list[pb.GenerateResponse] = []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for message in InferenceStub(channel).Generate(_asked(), timeout=2.0):
                messages.append(message)
        assert messages
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: node.provider.report()["outcomes"] == {"cancelled": 1})


async def test_replicas_of_one_account_say_so() -> None:
    """Same server and same key: the same account, whichever replica or model. The key cannot be told from it."""
    cards = []
    for settings in ({"API_KEY": "sk-one"}, {"API_KEY": "sk-one", "UPSTREAM_MODEL": "other"}, {"API_KEY": "sk-two"}):
        async with (
            provider_node("remote", ProviderOptions(), BASE_URL="http://127.0.0.1:9/v1", **settings) as node,
            open_channel(node.address) as channel,
        ):
            cards.append((await InferenceStub(channel).Describe(pb.DescribeRequest())).models[0])
    accounts = [card.account for card in cards]
    assert accounts[0] == accounts[1] != accounts[2]
    assert all(accounts)
    assert not any("sk-" in str(card) for card in cards)


async def test_thoughts_are_told_as_progress_until_the_answer_begins() -> None:
    """They are not passed on, but whoever waits for a first token may know that the model is at work."""
    thought = event({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]})
    words = event({"choices": [{"index": 0, "delta": {"content": "Well"}}]})
    end = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + event("[DONE]")
    script = (EVENTS, b": keep-alive\n\n", 0.3, thought, 0.7, thought, 0.3, words, 0.7, thought, end)
    async with (
        serving(*script) as server,
        provider_node("remote", ProviderOptions(), BASE_URL=server.url) as node,
        open_channel(node.address) as channel,
    ):
        messages = [message async for message in InferenceStub(channel).Generate(_asked())]
    told = [message for message in messages if message.HasField("progress")]
    assert messages[0] in told
    assert not any(message.deltas for message in told)
    begun = next(i for i, message in enumerate(messages) if message.deltas)
    assert not any(message.HasField("progress") for message in messages[begun:])
    assert told[0].progress.prompt_read == 1.0


async def test_a_caller_that_takes_nothing_holds_the_provider_up() -> None:
    """Nothing is gathered beyond a bound, on no hop; and taken later, the answer is whole."""
    words = event({"choices": [{"index": 0, "delta": {"content": "x" * 15_000}}]})
    end = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + event("[DONE]")
    count = 3200
    async with (
        serving(EVENTS, *[words] * count, end) as server,
        provider_node("remote", ProviderOptions(), BASE_URL=server.url, **_UNBOUNDED) as node,
        open_channel(node.address) as channel,
    ):
        call = InferenceStub(channel).Generate(_asked()).__aiter__()
        first = await anext(call)
        # What the provider could send comes to a stop long before its end.
        seen = -1
        while seen != server.sent:
            seen = server.sent
            await asyncio.sleep(0.5)
        assert 0 < seen < count * len(words) / 2
        messages = [first] + [message async for message in call]
    deltas = [delta for message in messages for delta in message.deltas]
    assert sum(len(delta.text) for delta in deltas) == count * 15_000
    assert deltas[-1].finish_reason == common.FINISH_REASON_STOP
    assert max(message.ByteSize() for message in messages) < 1 << 20


def _asked() -> pb.GenerateRequest:
    asked = pb.GenerateRequest(generation=chat_request(USER).generation)
    asked.generation.model = "remote"
    return asked
