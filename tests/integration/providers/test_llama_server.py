"""A provider node in front of llama.cpp's real server: what it promises holds against a server that nobody scripted."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.common.v1 import generation_pb2 as common
from headrace.inference.v1 import inference_pb2 as pb
from headrace.inference.v1.inference_pb2_grpc import InferenceStub
from mesh.channel import open_channel
from tests.integration.providers.llama_server import LlamaServer, llama_server
from tests.integration.providers.nodes import RunningNode, running_node
from tests.integration.router.harness import TIMERS, router
from tests.unit.inference.providers.asking import TOOL_TURNS, USER, WEATHER, chat_request

# A real model computes for seconds, which take longer the more a machine has to do.
pytestmark = pytest.mark.timeout(400)
_WITHIN_S = 200.0
_COUNT: dict[str, Any] = {"role": "ROLE_USER", "text": "Count from one to ten."}
_GREEDY = {"temperature": 0.0}


def _settings(server: LlamaServer) -> dict[str, str]:
    return {
        "ENGINE": "openai",
        "UPSTREAM_MODEL": "smollm2",
        "BASE_URL": server.url,
        "EXTENDED_SAMPLING": "true",
        "CONTINUE_TEXT": "continue_final_message",
    }


@pytest.fixture(scope="module")
def server() -> Iterator[LlamaServer]:
    """One server for all tests that leave it alive."""
    with llama_server() as running:
        yield running


@pytest.fixture
async def node(server: LlamaServer) -> AsyncIterator[InferenceStub]:
    """A node in front of it."""
    async with running_node("remote", **_settings(server)) as running, open_channel(running.address) as channel:
        yield InferenceStub(channel)


async def _ask(
    stub: InferenceStub, *turns: dict[str, Any], text: str = "", **more: Any
) -> tuple[list[common.ChoiceDelta], common.GenerationSummary]:
    request = pb.GenerateRequest(generation=chat_request(*turns, **more).generation)
    request.generation.model = ""
    if text:
        request.generation.resume.add(text=text)
    messages = [message async for message in stub.Generate(request, timeout=_WITHIN_S)]
    return [delta for message in messages for delta in message.deltas], messages[-1].summary


async def test_chat_usage_and_log_probabilities(node: InferenceStub) -> None:
    """The stream is whole, its usage is the server's, and each token stands beside its bytes."""
    sampling = _GREEDY | {"max_tokens": 8, "logprobs": True, "top_logprobs": 2, "top_k": 40}
    deltas, summary = await _ask(node, _COUNT, sampling=sampling)
    assert deltas[-1].finish_reason == common.FINISH_REASON_LENGTH
    assert summary.usage.completion_tokens == 8
    assert summary.usage.prompt_tokens > 8
    entries = [entry for delta in deltas for entry in delta.logprobs]
    assert len(entries) == 8
    assert b"".join(entry.raw for entry in entries).decode() == "".join(delta.text for delta in deltas)
    assert all(entry.logprob <= 0 and len(entry.top) == 2 for entry in entries)


async def test_a_schema_is_held_to(node: InferenceStub) -> None:
    """By the server, which is told of it."""
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    form = {"json_schema": json.dumps(schema), "name": "verdict"}
    deltas, _ = await _ask(node, USER, sampling=_GREEDY | {"max_tokens": 40, "response_format": form})
    assert isinstance(json.loads("".join(delta.text for delta in deltas))["ok"], bool)


async def test_tools_and_past_calls_are_understood(node: InferenceStub) -> None:
    """Tools are offered, and a conversation with a call and its answer is read. SmolLM2 itself calls none there."""
    for turns in ((USER,), TOOL_TURNS):
        deltas, summary = await _ask(node, *turns, sampling=_GREEDY | {"max_tokens": 4}, tools=[WEATHER])
        assert deltas[-1].finish_reason == common.FINISH_REASON_LENGTH
        assert summary.usage.completion_tokens == 4


async def test_an_answer_goes_on_from_its_text(node: InferenceStub) -> None:
    """The server says the text again, and its caller does not get it twice."""
    deltas, summary = await _ask(node, _COUNT, text="One, two, three,", sampling=_GREEDY | {"max_tokens": 6})
    assert "".join(delta.text for delta in deltas).startswith(" four")
    assert summary.usage.completion_tokens == 6


async def test_a_server_that_is_killed_in_mid_stream(tmp_path: Path) -> None:
    """Another node, of another engine and model, goes on from the text: one answer, disclosed as two."""
    config = {
        "deployments": [
            {"name": "remote", "service": "remote", "model": "remote"},
            {"name": "static", "service": "static", "model": "static"},
        ],
        "models": [{"name": "pub", "chain": ["remote", "static"], "resume": "text"}],
        "timers": TIMERS,
        "ramp": {"seconds": 0},
    }
    with llama_server() as server:
        async with (
            running_node("remote", **_settings(server)) as remote,
            running_node("static", ENGINE="static", ANSWER_TOKENS="8") as static,
            router(tmp_path, _by_name(remote, static), config) as running,
        ):
            begun = running.begin("Tell a long story of a river.", chat=True, max_tokens=400, within_s=_WITHIN_S)
            while len(begun.so_far.text) < 8 and not begun.rest.done():
                await asyncio.sleep(0.005)
            server.process.send_signal(signal.SIGKILL)
            answer = await begun.rest
    assert answer.error is None
    assert answer.disclosure.spliced
    assert [attempt.deployment for attempt in answer.disclosure.attempts] == ["remote", "static"]
    assert answer.causes[1][0] == "resume"
    assert len(answer.finishes) == 1
    assert len(answer.text) > 8


def _by_name(*nodes: RunningNode) -> dict[str, list[Any]]:
    return {node.name: [node] for node in nodes}
