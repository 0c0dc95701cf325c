"""Three replicas of SmolLM2, and at once all requests that used to end a process: no stream beside them notices."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from headrace.common.v1 import chat_pb2
from headrace.inference.v1 import inference_pb2 as pb
from inference.adapters.torch.constraints.compiler import GrammarState
from inference.adapters.torch.sampling_table import SamplingTable
from mesh.errors import from_rpc_error

from .conftest import Node, ask, chat, node_of, until

REPLICAS, STREAMS, TOKENS = 3, 12, 40


def held_to(**form: Any) -> pb.GenerateRequest:
    asked = chat("Give a JSON value.", max_tokens=40)
    asked.context.tenant = "hostile"
    for name, value in form.items():
        setattr(asked.generation.sampling.response_format, name, value)
    return asked


def schema(value: Any) -> pb.GenerateRequest:
    return held_to(json_schema=json.dumps(value))


def tool(parameters: Any) -> pb.GenerateRequest:
    asked = chat("Call it.", max_tokens=40)
    asked.context.tenant = "hostile"
    called = chat_pb2.Tool(name="f", parameters_json=json.dumps(parameters))
    asked.generation.prompt.chat.tools.append(called)
    asked.generation.prompt.chat.tool_choice.mode = chat_pb2.ToolChoice.MODE_REQUIRED
    return asked


HOSTILE = [
    schema({"$ref": "#"}),
    schema({"$defs": {"A": {"$ref": "#/$defs/A"}}, "$ref": "#/$defs/A"}),
    schema({"anyOf": [{"$ref": "#"}]}),
    schema({"type": "string", "pattern": r"^[^\s\S]$"}),
    schema({"type": "string", "pattern": "^a\\x04$"}),
    schema({"const": "\x04"}),
    schema({"type": "object", "properties": {"\x04": {"type": "null"}}, "required": ["\x04"]}),
    held_to(grammar="root ::= root"),
    held_to(regex="a\\x04"),
    tool({"$ref": "#"}),
    tool({"type": "object", "properties": {"a": {"type": "string", "pattern": "^a\\x04$"}}, "required": ["a"]}),
]


def question(number: int) -> pb.GenerateRequest:
    asked = chat(f"Tell me number {number} of your stories.", max_tokens=TOKENS, ignore_eos=True)
    asked.context.tenant = f"honest-{number % 4}"
    return asked


async def outcome(node: Node, request: pb.GenerateRequest) -> tuple[grpc.StatusCode, str] | None:
    """The status and the reason that a hostile request ends in; None where it is answered."""
    try:
        await ask(node, request)
    except grpc.aio.AioRpcError as error:
        return error.code(), from_rpc_error(error).reason
    return None


async def test_no_process_ends_and_no_honest_stream_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(node_of("torch", max_running=12, kv_tokens=4096, threads=1))
            for _ in range(REPLICAS)
        ]
        expected = [(await ask(nodes[0], question(number))).text() for number in range(STREAMS)]
        # What no grammar that is let in does any more, and what only a broken file does: told by the prompt's length.
        fill, enter = GrammarState.fill, SamplingTable.enter

        def nothing(state: GrammarState, words: Any, row: int, drafts: Any) -> None:
            fill(state, words, row, drafts)
            words[row] = 0

        def fails(table: SamplingTable, request_row: int, params: Any, **more: Any) -> None:
            if params.top_k == 77:
                raise IndexError("a defect")
            enter(table, request_row, params, **more)

        monkeypatch.setattr(GrammarState, "fill", nothing)
        monkeypatch.setattr(SamplingTable, "enter", fails)
        defect = chat("Hello.", max_tokens=4, top_k=77)
        empty = [held_to(regex="[a-z]+"), schema({"type": "boolean"}), held_to(json_object=True)]
        hostile = [*HOSTILE, *empty]
        honest = [asyncio.create_task(ask(nodes[number % REPLICAS], question(number))) for number in range(STREAMS)]
        ends = await asyncio.gather(*(outcome(node, request) for node in nodes for request in (*hostile, defect)))
        by_node = [ends[i : i + len(hostile) + 1] for i in range(0, len(ends), len(hostile) + 1)]
        for of_node in by_node:
            assert of_node[-1] == (grpc.StatusCode.INTERNAL, "GENERATION_FAILED")
            assert all(end is not None and end[0] is grpc.StatusCode.INVALID_ARGUMENT for end in of_node[:-1])
        assert [(await answer).text() for answer in honest] == expected
        for node in nodes:
            assert node.running is not None
            assert not node.running.done()
            await until(node.idle)
            assert (await node.load()).kv_used == 0
            assert node.service is not None
            assert node.service.readiness.ready
