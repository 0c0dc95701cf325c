"""Answers: what a stream says piece by piece is what the whole answer says."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.openai.answer import usage_of
from gateway.core.openai.api_requests import ApiRequest, ChatApiRequest, CompletionApiRequest
from gateway.core.openai.errors import param_of, refusal_of
from gateway.core.request_pipeline import Chunk
from headrace.common.v1 import generation_pb2 as pb
from headrace.router.v1.router_pb2 import GenerateResponse
from mesh.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    MeshError,
    NotFound,
    ResourceExhausted,
    StreamCut,
    Unauthenticated,
    Unavailable,
)

USAGE = pb.Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=1)


def chat(**options: Any) -> ChatApiRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | options
    return ChatApiRequest.decode(json.dumps(body).encode())


def completion(**options: Any) -> CompletionApiRequest:
    return CompletionApiRequest.decode(json.dumps({"model": "m", "prompt": "hi"} | options).encode())


def chunks(messages: Sequence[Sequence[pb.ChoiceDelta]], prompt: int = 0) -> list[Chunk]:
    return [Chunk(prompt, GenerateResponse(deltas=deltas)) for deltas in messages]


def whole(question: ApiRequest, given: Sequence[Chunk]) -> dict[str, Any]:
    answer = question.answer()
    for chunk in given:
        answer.add(chunk)
    return json.loads(answer.encode(usage_of(USAGE), None))


def stream_chunks(question: ApiRequest, given: Sequence[Chunk]) -> list[dict[str, Any]]:
    stream = question.stream()
    data = b"".join(stream.events(chunk) for chunk in given) + stream.last(usage_of(USAGE), None)
    return [json.loads(event.removeprefix(b"data: ")) for event in data.split(b"\n\n") if event]


def delta(index: int = 0, text: str = "", finish: str = "", **fields: Any) -> pb.ChoiceDelta:
    made = pb.ChoiceDelta(index=index, text=text, **fields)
    if finish:
        made.finish_reason = pb.FinishReason.Value(f"FINISH_REASON_{finish.upper()}")
    return made


TEXTS = st.lists(st.tuples(st.integers(0, 2), st.text(max_size=5)), max_size=12)


@given(TEXTS, st.sampled_from(["stop", "length", "content_filter"]))
def test_a_chat_stream_adds_up_to_the_whole_answer(texts: list[tuple[int, str]], finish: str) -> None:
    given = chunks([[delta(index, text)] for index, text in texts] + [[delta(i, finish=finish) for i in range(3)]])
    answer = whole(chat(n=3), given)
    streamed = stream_chunks(chat(n=3, stream=True), given)
    for index, choice in enumerate(answer["choices"]):
        own = [c["choices"][0] for c in streamed if c["choices"][0]["index"] == index]
        assert "".join(c["delta"].get("content", "") for c in own) == choice["message"]["content"]
        assert [c["finish_reason"] for c in own if c["finish_reason"]] == [choice["finish_reason"]] == [finish]
        assert [c["delta"].get("role") for c in own] == ["assistant"] + [None] * (len(own) - 1)
    assert len({(c["id"], c["created"]) for c in streamed}) == 1


@given(TEXTS)
def test_a_completion_stream_adds_up_to_the_whole_answer(texts: list[tuple[int, str]]) -> None:
    def given() -> list[Chunk]:
        made = [chunk for index, text in texts for chunk in chunks([[delta(index % 2, text)]], index)]
        return made + [chunk for p in range(3) for chunk in chunks([[delta(i, finish="stop") for i in range(2)]], p)]

    options: dict[str, Any] = {"prompt": ["a", "b", "c"], "n": 2, "echo": True}
    answer = whole(completion(**options), given())
    streamed = stream_chunks(completion(stream=True, **options), given())
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    for choice in answer["choices"]:
        own = [c["choices"][0] for c in streamed if c["choices"][0]["index"] == choice["index"]]
        assert "".join(c["text"] for c in own) == choice["text"]
        assert choice["text"].startswith("abc"[choice["index"] // 2])
        assert [c["finish_reason"] for c in own][-1] == choice["finish_reason"] == "stop"


def test_usage_comes_in_a_chunk_of_its_own_when_asked_for() -> None:
    given = chunks([[delta(text="a")], [delta(finish="stop")]])
    asked = stream_chunks(chat(stream=True, stream_options={"include_usage": True}), given)
    assert [c["usage"] for c in asked[:-1]] == [None, None]
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["total_tokens"] == 7
    assert asked[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 1
    assert all("usage" not in c for c in stream_chunks(chat(stream=True), given))


def test_tool_calls_are_put_together() -> None:
    pieces = [
        pb.ToolCallDelta(index=0, id="c1", name="f", arguments_json='{"a"'),
        pb.ToolCallDelta(index=0, arguments_json=":1}"),
        pb.ToolCallDelta(index=1, id="c2", name="g", arguments_json="{}"),
    ]
    given = chunks([[delta(tool_calls=[piece])] for piece in pieces] + [[delta(finish="tool_calls")]])
    choice = whole(chat(), given)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    calls = [
        (c["id"], c["type"], c["function"]["name"], c["function"]["arguments"]) for c in choice["message"]["tool_calls"]
    ]
    assert calls == [("c1", "function", "f", '{"a":1}'), ("c2", "function", "g", "{}")]
    streamed = [c["choices"][0]["delta"] for c in stream_chunks(chat(stream=True), given)]
    assert streamed[0]["tool_calls"] == [
        {"index": 0, "function": {"arguments": '{"a"', "name": "f"}, "id": "c1", "type": "function"}
    ]
    assert streamed[1]["tool_calls"] == [{"index": 0, "function": {"arguments": ":1}"}}]


def test_logprobs_keep_bytes_and_alternatives() -> None:
    entry = pb.TokenLogprob(token_id=1, text="é", raw="é".encode(), logprob=-0.5)
    entry.top.add(text="e", raw=b"e", logprob=-1.5)
    given = chunks([[delta(text="é", logprobs=[entry])], [delta(finish="stop")]])
    made = whole(chat(logprobs=True, top_logprobs=1), given)["choices"][0]["logprobs"]
    assert made["content"][0] == {
        "token": "é", "logprob": -0.5, "bytes": [195, 169],
        "top_logprobs": [{"token": "e", "logprob": -1.5, "bytes": [101]}],
    }  # fmt: skip
    legacy = whole(completion(logprobs=1, echo=False), given + given)["choices"][0]["logprobs"]
    assert legacy["text_offset"] == [0, 1]
    assert legacy["top_logprobs"] == [{"e": -1.5}] * 2
    assert whole(chat(), given)["choices"][0]["logprobs"] is None


def test_a_refusal_has_a_field_of_its_own() -> None:
    given = chunks([[delta(refusal="I will not.")], [delta(finish="stop")]])
    message = whole(chat(), given)["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "I will not.")
    assert stream_chunks(chat(stream=True), given)[0]["choices"][0]["delta"]["refusal"] == "I will not."


def test_text_that_is_held_back_says_nothing() -> None:
    held = chunks([[delta(token_ids=[1])]])
    assert stream_chunks(chat(stream=True), held) == []


@pytest.mark.parametrize(
    ("field", "param"),
    [
        (None, None),
        ("model", "model"),
        ("generation.model", "model"),
        ("generation.sampling.max_tokens", "max_completion_tokens"),
        ("generation.sampling.temperature", "temperature"),
        ("generation.sampling.response_format.json_schema", "response_format.json_schema.schema"),
        ("generation.sampling.response_format.json_object", "response_format"),
        ("generation.prompt.chat.messages[0].role", "messages[0].role"),
        ("generation.prompt.chat.tools", "tools"),
        ("generation.prompt.chat.tools[3].name", "tools[3].function.name"),
        ("generation.prompt.chat.tools[0].parameters_json", "tools[0].function.parameters"),
        ("generation.prompt.chat.tool_choice.name", "tool_choice.function.name"),
        (
            "generation.prompt.chat.messages[1].tool_calls[0].arguments_json",
            "messages[1].tool_calls[0].function.arguments",
        ),
        ("generation.prompt.text", "messages"),
        ("generation.prompt", "messages"),
    ],
)
def test_the_contracts_fields_get_the_callers_names(field: str | None, param: str | None) -> None:
    assert param_of(field, "messages", "max_completion_tokens") == param


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (InvalidArgument("x", field="n"), 400, "invalid_request_error", "invalid_value"),
        (InvalidArgument("x", reason="CONTEXT_TOO_LONG"), 400, "invalid_request_error", "context_length_exceeded"),
        (
            FailedPrecondition("x", reason="NO_CAPABLE_DEPLOYMENT"),
            400,
            "invalid_request_error",
            "no_capable_deployment",
        ),
        (Unauthenticated("x", reason="INVALID_API_KEY"), 401, "invalid_request_error", "invalid_api_key"),
        (NotFound("x", reason="MODEL_NOT_FOUND"), 404, "invalid_request_error", "model_not_found"),
        (ResourceExhausted("x", retry_after_s=2.5), 429, "rate_limit_error", "resource_exhausted"),
        (Internal("x"), 500, "server_error", "internal"),
        (Unavailable("x", reason="NO_HEALTHY_DEPLOYMENT"), 503, "server_error", "no_healthy_deployment"),
        (StreamCut("x"), 503, "server_error", "stream_cut"),
        (DeadlineExceeded("x"), 504, "timeout", "deadline_exceeded"),
    ],
)
def test_errors_get_openais_words(error: MeshError, status: int, kind: str, code: str) -> None:
    refusal = refusal_of(error, error.field)
    assert (refusal.status, refusal.detail.type, refusal.detail.code) == (status, kind, code)
    headers = dict(refusal.headers)
    assert (b"www-authenticate" in headers) == (status == 401)
    assert (b"retry-after" in headers) == (status in (429, 503))
    if status == 429:
        assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (b"3", b"2500")


def test_a_nodes_words_name_the_callers_field() -> None:
    field = "generation.sampling.max_tokens"
    error = InvalidArgument(f"{field}: 9 exceed the context of 8", field=field)
    assert refusal_of(error, "max_tokens").detail.message == "Invalid 'max_tokens': 9 exceed the context of 8"
