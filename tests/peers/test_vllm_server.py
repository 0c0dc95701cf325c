"""A provider node in front of a real vLLM server: chat, tools, schema, log probabilities, usage, and its death."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.common.v1 import generation_pb2 as common
from headrace.inference.v1 import inference_pb2 as pb
from headrace.inference.v1.inference_pb2_grpc import InferenceStub
from mesh.channel import open_channel
from tests.integration.providers.nodes import running_node
from tests.integration.router.harness import TIMERS, router
from tests.peers.vllm_server import INSTALLED, VllmServer, vllm_server
from tests.unit.inference.providers.asking import USER, WEATHER, chat_request

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not INSTALLED.exists(), reason="make test-peers installs vLLM"),
]
_WITHIN_S = 400.0
_COUNT: dict[str, Any] = {"role": "ROLE_USER", "text": "Count from one to ten."}
_GREEDY = {"temperature": 0.0}


@pytest.fixture(scope="module")
def server() -> Iterator[VllmServer]:
    """One server for all tests; the last of them kills it."""
    with vllm_server() as running:
        yield running


def _settings(server: VllmServer) -> dict[str, str]:
    return {
        "ENGINE": "openai",
        "UPSTREAM_MODEL": "smollm2",
        "BASE_URL": server.url,
        "EXTENDED_SAMPLING": "true",
        "CONTINUE_TEXT": "continue_final_message",
    }


@pytest.fixture
async def node(server: VllmServer) -> AsyncIterator[InferenceStub]:
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


async def test_a_schema_is_held_to(node: InferenceStub) -> None:
    """By the server, which is told of it."""
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    form = {"json_schema": json.dumps(schema), "name": "verdict"}
    deltas, _ = await _ask(node, USER, sampling=_GREEDY | {"max_tokens": 60, "response_format": form})
    assert isinstance(json.loads("".join(delta.text for delta in deltas))["ok"], bool)


async def test_a_named_tool_is_called(node: InferenceStub) -> None:
    """Once, with an id and arguments as JSON, and the finish reason that goes with calls.

    What the arguments are is the server's business: this version holds them to no schema where a tool is named.
    """
    named = {"mode": "MODE_NAMED", "name": "weather"}
    deltas, _ = await _ask(node, USER, sampling=_GREEDY | {"max_tokens": 60}, tools=[WEATHER], tool_choice=named)
    pieces = [call for delta in deltas for call in delta.tool_calls]
    assert {piece.index for piece in pieces} == {0}
    assert "".join(piece.name for piece in pieces) == "weather"
    assert "".join(piece.id for piece in pieces)
    assert json.loads("".join(piece.arguments_json for piece in pieces))
    assert deltas[-1].finish_reason == common.FINISH_REASON_TOOL_CALLS


async def test_an_answer_goes_on_from_its_text(node: InferenceStub) -> None:
    """Nothing of the text is given out again."""
    deltas, summary = await _ask(node, _COUNT, text="One, two, three,", sampling=_GREEDY | {"max_tokens": 6})
    assert "".join(delta.text for delta in deltas).startswith(" four")
    assert summary.usage.completion_tokens == 6


async def test_a_server_that_is_killed_in_mid_stream(server: VllmServer, tmp_path: Path) -> None:
    """Another node, of another engine and model, goes on from the text: one answer, disclosed as two."""
    config = {
        "deployments": [{"name": name, "service": name, "model": name} for name in ("remote", "static")],
        "models": [{"name": "pub", "chain": ["remote", "static"], "resume": "text"}],
        "timers": TIMERS,
        "ramp": {"seconds": 0},
    }
    async with (
        running_node("remote", **_settings(server)) as remote,
        running_node("static", ENGINE="static", ANSWER_TOKENS="8") as static,
        router(tmp_path, {"remote": [remote], "static": [static]}, config) as running,
    ):
        begun = running.begin("Tell a long story of a river.", chat=True, max_tokens=400, within_s=_WITHIN_S)
        while len(begun.so_far.text) < 8 and not begun.rest.done():
            await asyncio.sleep(0.005)
        server.kill()
        answer = await begun.rest
    assert answer.error is None
    assert answer.disclosure.spliced
    assert [attempt.deployment for attempt in answer.disclosure.attempts] == ["remote", "static"]
    assert len(answer.finishes) == 1
