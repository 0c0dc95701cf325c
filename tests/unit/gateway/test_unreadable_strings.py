"""Strings that nobody could read further on are refused here, by the field they are in."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.generation_checks import check_generation
from gateway.core.json_text import fault_of, lone_surrogate
from gateway.core.openai.api_requests import ChatApiRequest, CompletionApiRequest
from headrace.common.v1 import chat_pb2
from headrace.common.v1.generation_pb2 import Generation
from mesh.errors import InvalidArgument

HALF = '"\\ud83d"'
DEEP = '{"a":' * 5000 + "1" + "}" * 5000


def refused(body: str) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        ChatApiRequest.decode(body.encode())
    assert caught.value.field is not None
    assert caught.value.field in caught.value.message
    return caught.value


def conversation(arguments: str = "{}", result: Any = "r") -> str:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": result},
    ]
    return json.dumps({"model": "m", "messages": messages})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (f'{{"model":{HALF},"messages":[]}}', "model"),
        (f'{{"model":"m","messages":[{{"role":"user","content":"a"}},{{"role":"user","content":{HALF}}}]}}',
         "messages[1].content"),
        (f'{{"model":"m","messages":[{{"role":"user","content":[{{"type":"text","text":{HALF}}}]}}]}}',
         "messages[0].content[0].text"),
        (f'{{"model":"m","messages":[{{"role":"user","content":"a","name":{HALF}}}]}}', "messages[0].name"),
        (f'{{"model":"m","messages":[{{"role":"tool","content":"a","tool_call_id":{HALF}}}]}}',
         "messages[0].tool_call_id"),
        (f'{{"model":"m","messages":[{{"role":"tool","content":{HALF},"tool_call_id":"a"}}]}}', "messages[0].content"),
        (f'{{"model":"m","messages":[{{"role":"assistant","tool_calls":[{{"id":{HALF}}}]}}]}}',
         "messages[0].tool_calls[0].id"),
        (f'{{"model":"m","messages":[{{"role":"assistant","tool_calls":[{{"function":{{"arguments":{HALF}}}}}]}}]}}',
         "messages[0].tool_calls[0].function.arguments"),
        (f'{{"stop":["a",{HALF}]}}', "stop[1]"),
        (f'{{"user":{HALF}}}', "user"),
        (f'{{"metadata":{{"a":{HALF}}}}}', "metadata"),
        (f'{{"prediction":{{"a":[{HALF}]}}}}', "prediction"),
        (f'{{"tools":[{{"function":{{"name":"f","description":{HALF}}}}}]}}', "tools[0].function.description"),
        (f'{{"tools":[{{"function":{{"name":"f","parameters":{{"x":{HALF}}}}}}}]}}', "tools[0].function.parameters"),
        (f'{{"response_format":{{"json_schema":{{"schema":{{"x":{HALF}}}}}}}}}', "response_format.json_schema.schema"),
        ('{"user":"\\udc00"}', "user"),
        ('{"user":"\\ud83dabcdefgh"}', "user"),
        ('{"user":"\\ud83d\\ud83d"}', "user"),
        ('{"user":"\\\\\\ud83d", "x":"yyyyyyyyy"}', "user"),
        ('{"prediction":' + '{"a":' * 100_000, "prediction"),
        ('{"tools":[{"type":"function","function":{"name":"f","parameters":' + '{"a":' * 100_000,
         "tools[0].function.parameters"),
        ('{"logit_bias":{"1":NaN}}', "logit_bias"),
        ('{"logit_bias":{"1":-Infinity}}', "logit_bias"),
        ('{"metadata":{"a":NaN}}', "metadata"),
        ('{"stop":["NaN",NaN]}', "stop[1]"),
        ('{"temperature":Infinity}', "temperature"),
    ],
)  # fmt: skip
def test_the_field_of_what_a_decoder_cannot_place_is_named(body: str, field: str) -> None:
    assert refused(body).field == field


@pytest.mark.parametrize("arguments", ['{"s":"\\ud83d"}', '{"\\udc00":1}', DEEP, "[" * 65, '{"n":' + "9" * 5000 + "}"])
def test_a_calls_arguments_are_looked_into(arguments: str) -> None:
    assert refused(conversation(arguments)).field == "messages[1].tool_calls[0].function.arguments"


@pytest.mark.parametrize("result", ['{"s":"\\ud83d"}', DEEP, "[" * 3000 + "]" * 3000, '["\\udfff"]'])
def test_a_tools_result_that_is_json_is_looked_into(result: str) -> None:
    assert refused(conversation(result=result)).field == "messages[2].content"
    parts = [{"type": "text", "text": result[:5]}, {"type": "text", "text": result[5:]}]
    assert refused(conversation(result=parts)).field == "messages[2].content"


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"s":"\\ud83c\\udf0d"}', '{"s":"\\\\ud83d"}', '{"s":"' + "[" * 500 + '"}', "not JSON: " + "(" * 99,
     '{"s":"' + "1" * 5000 + '"}', "[" * 64 + "]" * 64, "[[]," * 200 + "[]"],
)  # fmt: skip
def test_what_can_be_read_passes(text: str) -> None:
    if text.count("[") <= 64 or text.startswith('{"s"'):
        assert fault_of(text) is None
    ChatApiRequest.decode(conversation(result="text with \\ud83d and " + "[" * 300).encode())


@given(st.lists(st.sampled_from(["\\", "\\\\", "\\ud83d", "\\udf0d", "\\u0041", "x", '\\"', "u"]), max_size=12))
def test_halves_are_told_as_a_json_reader_tells_them(pieces: list[str]) -> None:
    text = '"' + "".join(pieces) + '"'
    try:
        read = json.loads(text)
    except ValueError:
        return
    assert lone_surrogate(text) == any("\ud800" <= c <= "\udfff" for c in read)


@given(st.integers(0, 200), st.randoms(use_true_random=False))
def test_depth_is_told_as_a_reader_counts_it(depth: int, rng: random.Random) -> None:
    document: Any = '"] \\'
    for _ in range(depth):
        document = [document, {}] if rng.random() < 0.5 else {"{": document}
    assert (fault_of(json.dumps(document)) is not None) == (max(depth, 1 if isinstance(document, list) else 0) > 64)


def generation(**chat: Any) -> Generation:
    made = Generation(model="m")
    made.prompt.chat.CopyFrom(chat_pb2.ChatPrompt(**chat))
    return made


CALL = chat_pb2.ToolCall(id="a", name="f", arguments_json='{"s":"\\ud83d"}')


@pytest.mark.parametrize(
    ("chat", "field"),
    [
        ({"messages": [chat_pb2.Message(role=4, tool_calls=[CALL])]}, "messages[0].tool_calls[0].arguments_json"),
        ({"messages": [chat_pb2.Message(role=5, content=[chat_pb2.ContentPart(text=DEEP)])]}, "messages[0].content"),
        ({"messages": [chat_pb2.Message(role=3)], "tools": [chat_pb2.Tool(name="f", parameters_json=DEEP)]},
         "tools[0].parameters_json"),
    ],
)  # fmt: skip
def test_the_same_holds_in_the_contracts_terms(chat: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_generation(generation(**chat))
    assert caught.value.field == f"generation.prompt.chat.{field}"


def test_a_prompt_with_half_a_pair_is_named() -> None:
    with pytest.raises(InvalidArgument) as caught:
        CompletionApiRequest.decode(f'{{"model":"m","prompt":["a",{HALF}]}}'.encode())
    assert caught.value.field == "prompt[1]"
