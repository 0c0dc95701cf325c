"""Chat requests: what is understood, and that everything else names the field that is wrong."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.generation_checks import check_generation
from gateway.core.openai.api_requests import ChatApiRequest
from headrace.common.v1 import chat_pb2
from headrace.common.v1.generation_pb2 import Generation
from mesh.errors import InvalidArgument

USER = {"role": "user", "content": "hi"}
GOOD: dict[str, Any] = {"model": "m", "messages": [USER]}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}


def tool(parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


TOOL = tool({"type": "object"})


def generation(**changes: Any) -> Generation:
    return ChatApiRequest.decode(json.dumps(GOOD | changes).encode()).generations[0]


def refused(body: bytes) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        ChatApiRequest.decode(body)
    return caught.value


def nested(levels: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for _ in range(levels):
        made = {"a": made}
    return made


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": ""}, "model"),
    ({"model": None}, "model"),
    ({"model": 5}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [USER, {"role": "user", "content": 5}]}, "messages[1].content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}]}, "messages[0].content[0].x"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]},
        "messages[0].content[0].image_url.url",
    ),
    ({"messages": [{"role": "system", "content": [IMAGE]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": "hi", "foo": 1}]}, "messages[0].foo"),
    ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
    ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "function", "name": "f", "content": "a"}]}, "messages[0].role"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": 2**31}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
    ({"temperature": 2.01}, "temperature"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"temperature": float("inf")}, "temperature"),
    ({"temperature": float("-inf")}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"n": 0}, "n"),
    ({"n": 33}, "n"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"stop": ["a", ""]}, "stop[1]"),
    ({"seed": 2**63}, "seed"),
    ({"presence_penalty": 2.1}, "presence_penalty"),
    ({"frequency_penalty": -2.1}, "frequency_penalty"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
    ({"stream": "yes"}, "stream"),
    ({"store": True}, "store"),
    ({"metadata": {"a": 1}}, "metadata"),
    ({"functions": []}, "functions"),
    ({"function_call": "auto"}, "function_call"),
    ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"no_such_field": 1}, "no_such_field"),
    ({"top_k": -1}, "top_k"),
    ({"min_p": 1.5}, "min_p"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"tools": []}, "tools"),
    ({"tools": [{"type": "custom"}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {"name": "not a name"}}]}, "tools[0].function.name"),
    ({"tools": [tool(nested(30))]}, "tools[0].function.parameters"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice.function.name"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": nested(40)}}},
        "response_format.json_schema.schema",
    ),
    ({"modalities": ["audio"]}, "modalities[0]"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "field"), BAD, ids=[f"{i}-{field}" for i, (_, field) in enumerate(BAD)])
def test_what_is_wrong_is_named(changes: dict[str, Any], field: str) -> None:
    error = refused(json.dumps(GOOD | changes).encode())
    assert error.field == field
    assert field in error.message


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "INVALID_JSON"),
        (b"{", "INVALID_JSON"),
        (b"nonsense", "INVALID_JSON"),
        (b'{"model":"m","messages":[{"role":"user","content":"hi"}]} x', "INVALID_JSON"),
        (b'\xef\xbb\xbf{"model":"m"}', "MISSING_REQUIRED_PARAMETER"),
        (b"\xef\xbb\xbf", "INVALID_JSON"),
        (b'{"model":"\\ud800"}', "INVALID_JSON"),
        (b'{"model":"\xff\xfe","messages":[]}', "INVALID_UTF8"),
        (b"[]", "INVALID_ARGUMENT"),
        (b"null", "INVALID_ARGUMENT"),
        (b'{"prediction":' + b'{"a":' * 100_000, "INVALID_JSON"),
        (b'{"messages":' + b"[" * 100_000, "INVALID_ARGUMENT"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(body: bytes, reason: str) -> None:
    assert refused(body).reason == reason


def test_the_last_of_duplicate_keys_counts() -> None:
    body = b'{"model":"a","model":"b","messages":[{"role":"user","content":"hi"}]}'
    assert ChatApiRequest.decode(body).model == "b"


def test_every_sampling_field_arrives() -> None:
    made = generation(
        temperature=0.5, top_p=0.5, n=3, stop=["a", "b"], seed=-1, presence_penalty=1, frequency_penalty=-1, top_k=4,
        min_p=0.25, repetition_penalty=1.5, logit_bias={"7": -100}, max_completion_tokens=9, logprobs=True,
        top_logprobs=2,
    ).sampling  # fmt: skip
    assert (made.temperature, made.top_p, made.n, list(made.stop)) == (0.5, 0.5, 3, ["a", "b"])
    assert (made.seed, made.presence_penalty, made.frequency_penalty) == (2**64 - 1, 1, -1)
    assert (made.top_k, made.min_p, made.repetition_penalty, dict(made.logit_bias)) == (4, 0.25, 1.5, {7: -100})
    assert (made.max_tokens, made.logprobs, made.top_logprobs) == (9, True, 2)


def test_what_is_not_said_is_left_to_the_model() -> None:
    made = generation(stop=None, temperature=None, seed=None, tools=None, response_format={"type": "text"})
    assert {field.name for field, _ in made.sampling.ListFields()} == {"n"}
    assert not made.sampling.HasField("max_tokens")


def test_messages_keep_roles_parts_names_and_calls() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}}
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "developer", "content": [{"type": "text", "text": "really"}]},
        {"role": "user", "content": [{"type": "text", "text": "look"}, image], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": [], "audio": None},
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
        {"role": "assistant", "refusal": "no"},
    ]
    made = generation(messages=messages).prompt.chat.messages
    roles = [chat_pb2.Role.Name(message.role) for message in made]
    assert roles == [f"ROLE_{r}" for r in ("SYSTEM", "DEVELOPER", "USER", "ASSISTANT", "TOOL", "ASSISTANT")]
    assert made[2].name == "ann"
    assert (made[2].content[1].image.url, made[2].content[1].image.detail) == ("data:image/png;base64,AA", "low")
    assert (made[3].tool_calls[0].name, made[3].tool_calls[0].arguments_json) == ("f", '{"a":1}')
    assert made[4].tool_call_id == "c1"
    assert made[5].content[0].text == "no"


def test_tools_and_formats_arrive() -> None:
    schema = {"name": "s", "schema": {"type": "object"}, "strict": True}
    made = generation(
        tools=[TOOL], tool_choice={"type": "function", "function": {"name": "f"}}, parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": schema},
    )  # fmt: skip
    chat, form = made.prompt.chat, made.sampling.response_format
    assert chat.tools[0].parameters_json == '{"type":"object"}'
    assert (chat.tool_choice.mode, chat.tool_choice.name) == (chat_pb2.ToolChoice.MODE_NAMED, "f")
    assert chat.HasField("parallel_tool_calls")
    assert not chat.parallel_tool_calls
    assert (json.loads(form.json_schema), form.name, form.strict) == ({"type": "object"}, "s", True)
    assert generation(response_format={"type": "json_object"}).sampling.response_format.json_object


def test_the_parameters_of_a_tool_keep_their_order() -> None:
    properties = {name: {"type": "string"} for name in ("reasoning", "city", "unit", "alpha")}
    made = generation(tools=[tool({"type": "object", "properties": properties})]).prompt.chat.tools[0]
    assert list(json.loads(made.parameters_json)["properties"]) == list(properties)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    sorted({field.partition("[")[0].partition(".")[0] for _, field in BAD} | {"user", "response_format"})
)


@settings(max_examples=300)
@given(st.dictionaries(FIELDS, JSON, max_size=4))
def test_any_json_is_understood_or_refused_in_words(changes: dict[str, Any]) -> None:
    body = json.dumps(GOOD | changes).encode()
    try:
        question = ChatApiRequest.decode(body)
    except InvalidArgument:
        return
    # What is understood also holds in the contract's own terms.
    check_generation(question.generations[0])


@settings(max_examples=300)
@given(
    st.binary(max_size=64)
    | st.builds(lambda head, tail: head + b'"model":"m",' + tail, st.just(b"{"), st.binary(max_size=32))
)
def test_any_bytes_are_refused_in_words(body: bytes) -> None:
    assert refused(body).message
