"""The torch engine with SmolLM2 calls tools: a small model's choices, but never an argument that breaks its schema."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import jsonschema_rs
import pytest
import pytest_asyncio
from google.protobuf import json_format

from headrace.common.v1 import chat_pb2, generation_pb2
from headrace.inference.v1 import inference_pb2 as pb
from mesh.errors import from_rpc_error

from .conftest import Answer, Node, ask, chat, node_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
CALLED, LENGTH = generation_pb2.FINISH_REASON_TOOL_CALLS, generation_pb2.FINISH_REASON_LENGTH
SCHEMAS = {
    "get_weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "minLength": 2, "maxLength": 40},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "days": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 7}, "maxItems": 3},
        },
        "required": ["city", "unit"],
    },
    "get_time": {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]},
}
TOOLS = [
    {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parametersJson": json.dumps(SCHEMAS["get_weather"]),
    },
    {"name": "get_time", "description": "The time in a time zone.", "parametersJson": json.dumps(SCHEMAS["get_time"])},
]
QUESTION = "What is the weather in Paris?"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[Node]:
    async with node_of("torch", context_length=2048) as running:
        yield running


def request(
    mode: str = "AUTO", name: str = "", *, tools: Any = TOOLS, parallel: bool | None = None, **sampling: Any
) -> pb.GenerateRequest:
    made = chat(QUESTION, **{"max_tokens": 120, **sampling})
    prompt = made.generation.prompt.chat
    fields = {"tools": tools, "toolChoice": {"mode": f"MODE_{mode}", "name": name}}
    json_format.ParseDict(fields, prompt)
    if parallel is not None:
        prompt.parallel_tool_calls = parallel
    return made


def calls(answer: Answer, index: int = 0) -> list[tuple[str, str, str]]:
    """Each call's id, name and arguments; in every message at most one piece of each."""
    found: dict[int, list[str]] = {}
    for response in answer.responses:
        for delta in response.deltas:
            assert len({piece.index for piece in delta.tool_calls}) == len(delta.tool_calls)
            for piece in delta.tool_calls if delta.index == index else ():
                assert bool(piece.id) == bool(piece.name) == (piece.index not in found)
                one = found.setdefault(piece.index, [piece.id, piece.name, ""])
                one[2] += piece.arguments_json
    return [(a, b, c) for a, b, c in found.values()]


def check(found: list[tuple[str, str, str]]) -> None:
    for _, name, arguments in found:
        jsonschema_rs.validate(SCHEMAS[name], json.loads(arguments))


async def test_the_card_says_that_it_calls_tools(node: Node) -> None:
    (card,) = (await node.stub.Describe(pb.DescribeRequest())).models
    assert card.capabilities.tools


async def test_a_call_that_is_required_follows_its_schema(node: Node) -> None:
    answer = await ask(node, request("REQUIRED", parallel=False, logprobs=True))
    ((call_id, name, arguments),) = calls(answer)
    assert name == "get_weather"
    assert json.loads(arguments)["city"] == "Paris"
    check(calls(answer))
    assert call_id.startswith("call_")
    assert answer.text() == ""
    assert answer.finishes() == [CALLED]
    assert answer.summary.usage.completion_tokens == len(answer.tokens()) == len(answer.logprobs())
    assert answer.responses[-1].deltas[-1].confidence.tokens >= len(answer.tokens())


async def test_a_named_tool_is_the_one_that_is_called(node: Node) -> None:
    answer = await ask(node, request("NAMED", "get_time", parallel=False))
    ((_, name, _),) = calls(answer)
    assert name == "get_time"
    check(calls(answer))
    assert answer.finishes() == [CALLED]


async def test_a_named_tool_is_called_once_whatever_is_said_of_parallel_calls(node: Node) -> None:
    for parallel in (None, True):
        answer = await ask(node, request("NAMED", "get_time", parallel=parallel, max_tokens=400))
        assert [name for _, name, _ in calls(answer)] == ["get_time"]
        assert answer.finishes() == [CALLED]
        assert answer.text() == ""


@pytest.mark.parametrize("tokens", [1, 2, 4, 6])
async def test_a_required_call_that_is_cut_in_its_opening_gives_no_text(node: Node, tokens: int) -> None:
    answer = await ask(node, request("REQUIRED", max_tokens=tokens))
    assert answer.text() == ""
    assert answer.finishes() == [LENGTH]


async def test_sampled_calls_hold_to_their_schemas_too(node: Node) -> None:
    answer = await ask(node, request("REQUIRED", n=6, temperature=1.5, seed=3))
    ids = set()
    for index in range(6):
        found = calls(answer, index)
        assert found
        check(found if answer.finishes(index) == [CALLED] else found[:-1])
        assert answer.text(index) == ""
        ids |= {call_id for call_id, _, _ in found}
    assert len(ids) == sum(len(calls(answer, index)) for index in range(6))


async def test_auto_leaves_the_choice_to_the_model_and_none_allows_no_call(node: Node) -> None:
    free, none = await asyncio.gather(ask(node, request(max_tokens=16)), ask(node, request("NONE", max_tokens=16)))
    for answer in (free, none):
        assert answer.text()
        assert calls(answer) == []
        assert answer.finishes() != [CALLED]
    # The prompt is the same, so that the cache holds for both.
    assert free.summary.usage.prompt_tokens == none.summary.usage.prompt_tokens > 100


async def test_once_a_call_has_begun_in_the_text_it_is_one(node: Node) -> None:
    """The beginning is put into the model's mouth: text, and half the marker."""
    begun = generation_pb2.Generation(prompt={"text": "Let me see. <tool_"})
    tokens = (await node.stub.Tokenize(pb.TokenizeRequest(generation=begun))).token_ids
    asked = request(parallel=False, logit_bias=await likely(node, "call>"))
    asked.generation.resume.add(index=0, token_ids=tokens, text="Let me ")
    answer = await ask(node, asked)
    assert answer.text() == "see. "
    assert len(calls(answer)) == 1
    check(calls(answer))
    assert answer.finishes() == [CALLED]


async def likely(node: Node, text: str) -> dict[int, float]:
    """A bias to that text's tokens."""
    asked = pb.TokenizeRequest(generation=generation_pb2.Generation(prompt={"text": text}))
    return {token: 10.0 for token in (await node.stub.Tokenize(asked)).token_ids}


async def test_a_call_that_is_cut_short_is_no_finished_call(node: Node) -> None:
    whole = await ask(node, request("REQUIRED", parallel=False))
    cut = await ask(node, request("REQUIRED", parallel=False, max_tokens=len(whole.tokens()) - 8))
    assert cut.finishes() == [LENGTH]
    ((call_id, name, arguments),) = calls(cut)
    ((whole_id, whole_name, whole_arguments),) = calls(whole)
    assert (call_id, name) == (whole_id, whole_name)
    assert whole_arguments.startswith(arguments)


async def test_another_node_goes_on_in_the_middle_of_a_call(node: Node) -> None:
    whole = await ask(node, request("REQUIRED", n=2, temperature=1.0, seed=5, parallel=False))
    deltas = [delta for response in whole.responses for delta in response.deltas]
    had = deltas[: len(deltas) // 2]
    again = request("REQUIRED", n=2, temperature=1.0, seed=5, parallel=False)
    for index in range(2):
        own = [delta for delta in had if delta.index == index]
        again.generation.resume.add(
            index=index, token_ids=[t for d in own for t in d.token_ids], text="".join(d.text for d in own)
        )
    rest = await ask(node, again)
    joined = Answer([pb.GenerateResponse(deltas=had), *rest.responses])
    for index in range(2):
        before = [piece for delta in had if delta.index == index for piece in delta.tool_calls]
        after = [p for r in rest.responses for d in r.deltas if d.index == index for p in d.tool_calls]
        assert whole.tokens(index) == joined.tokens(index)
        ((call_id, name, arguments),) = calls(whole, index)
        assert "".join(piece.id for piece in [*before, *after]) == call_id
        assert "".join(piece.name for piece in [*before, *after]) == name
        assert "".join(piece.arguments_json for piece in [*before, *after]) == arguments


async def test_the_answer_of_a_tool_goes_back_to_the_model(node: Node) -> None:
    asked = request()
    messages = asked.generation.prompt.chat.messages
    messages.add(role=chat_pb2.ROLE_ASSISTANT).tool_calls.add(
        id="call_1", name="get_weather", arguments_json='{"city": "Paris", "unit": "celsius"}'
    )
    messages.add(role=chat_pb2.ROLE_TOOL, tool_call_id="call_1").content.add(text='{"celsius": 21, "sky": "clear"}')
    answer = await ask(node, asked)
    assert "clear" in answer.text()
    assert calls(answer) == []


@pytest.mark.parametrize(
    ("tools", "mode", "field", "words"),
    [
        (
            [
                TOOLS[1],
                {"name": "f", "parametersJson": '{"properties": {"a": {"type": "array", "uniqueItems": true}}}'},
            ],
            "AUTO",
            "tools[1].parameters_json",
            "'uniqueItems' at #/properties/a",
        ),
        ([{"name": "two words"}], "AUTO", "tools[0].name", "two words"),
        (TOOLS, "NAMED", "tool_choice.name", "'get_tide'"),
        ([], "REQUIRED", "tool_choice", "no tools"),
        (
            [{"name": "f", "parametersJson": '{"properties": {"a": {"type": "string", "pattern": "("}}}'}],
            "AUTO",
            "tools[0].parameters_json",
            "'pattern' at #/properties/a: has a ( without its )",
        ),
        (
            [TOOLS[1], {"name": "f", "parametersJson": '{"properties": {"a": {"const": "\\u0004\\ud800"}}}'}],
            "REQUIRED",
            "tools[1].parameters_json",
            "half a surrogate pair",
        ),
    ],
)
async def test_what_no_answer_could_be_held_to_is_refused(
    node: Node, tools: Any, mode: str, field: str, words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(node, request(mode, "get_tide" if mode == "NAMED" else "", tools=tools))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    error = from_rpc_error(caught.value)
    assert error.field == f"generation.prompt.chat.{field}"
    assert words in error.message
