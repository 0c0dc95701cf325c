"""The Anthropic dialect, held against the official client's own types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import RawMessageStreamEvent
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from pydantic import TypeAdapter

from headrace.common.v1 import generation_pb2 as pb
from inference.core.chat_port import ChatRequest
from inference.core.providers.anthropic_request import AnthropicOptions, to_call
from inference.core.providers.anthropic_response import AnthropicReader
from inference.core.providers.request_fields import Unsupported
from inference.core.providers.sse import SseEvent
from mesh.errors import FailedPrecondition, InvalidArgument, MeshError
from tests.unit.inference.providers.asking import IMAGE_TURN, PIXEL, TOOL_TURNS, USER, WEATHER, chat_request

_PARAMS: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsStreaming)
_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def _body(request: ChatRequest, **options: Any) -> dict[str, Any]:
    """The body that is sent, after the official client's types have accepted it."""
    body = to_call(request, AnthropicOptions(model="claude", **options)).body
    _PARAMS.validate_python(body)
    return body


def test_a_plain_question() -> None:
    """The API wants a limit; the version is in a header."""
    call = to_call(chat_request(USER), AnthropicOptions(model="claude"))
    assert call.headers == {"anthropic-version": "2026-10-21"}
    assert call.path == "/messages"
    assert _body(chat_request(USER)) == {
        "model": "claude",
        "stream": True,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What is the weather in Oslo?"}]}],
    }


def test_tools_and_their_answers() -> None:
    """Instructions stand apart, and the results of parallel calls stand together."""
    second = {"id": "call_2", "name": "weather", "arguments_json": ""}
    turns = [dict(turn) for turn in TOOL_TURNS]
    turns[2]["tool_calls"] = [*turns[2]["tool_calls"], second]
    turns += [{"role": "ROLE_TOOL", "tool_call_id": "call_2", "text": "none"}, {"role": "ROLE_USER", "text": "And?"}]
    request = chat_request(*turns, tools=[WEATHER], tool_choice={"mode": "MODE_REQUIRED"}, parallel_tool_calls=False)
    body = _body(request)
    assert body["system"] == [{"type": "text", "text": "Be brief."}]
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][1]["content"][0]["input"] == {"city": "Oslo"}
    assert body["messages"][1]["content"][1]["input"] == {}
    results = body["messages"][2]["content"]
    assert [block["type"] for block in results] == ["tool_result", "tool_result", "text"]
    assert body["tools"][0]["input_schema"] == WEATHER["parameters"]
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}


def test_images_by_value_and_by_link() -> None:
    """Data URLs become base64 sources."""
    blocks = _body(chat_request(IMAGE_TURN))["messages"][0]["content"]
    assert blocks[1]["source"] == {"type": "base64", "media_type": "image/png", "data": PIXEL}
    assert blocks[2]["source"] == {"type": "url", "url": "https://example.org/a.png"}
    assert blocks[3]["source"] == blocks[1]["source"]


def test_structured_output_and_stops() -> None:
    """A schema goes into the output configuration."""
    sampling = {"response_format": {"json_schema": '{"type":"object"}'}, "stop": ["END"], "max_tokens": 9}
    body = _body(chat_request(USER, sampling=sampling))
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert (body["stop_sequences"], body["max_tokens"]) == (["END"], 9)


def test_only_the_older_version_says_how_tokens_are_drawn() -> None:
    """The newer one refuses the fields at any value, so neutral ones are left out and others refused here."""
    cold = chat_request(USER, sampling={"temperature": 0, "top_p": 0.5, "top_k": 4})
    older = to_call(cold, AnthropicOptions(model="c", api_version="2023-06-01")).body
    assert (older["temperature"], older["top_p"], older["top_k"]) == (0, 0.5, 4)
    assert "temperature" not in _body(chat_request(USER, sampling={"temperature": 1}))
    assert "temperature" not in _body(cold, unsupported=Unsupported.DROP)
    with pytest.raises(FailedPrecondition) as caught:
        _body(cold)
    assert caught.value.field == "generation.sampling.temperature"


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"seed": 1}, "generation.sampling.seed"),
        ({"n": 2}, "generation.sampling.n"),
        ({"logit_bias": {"1": 2}}, "generation.sampling.logit_bias"),
        ({"presence_penalty": 1}, "generation.sampling.presence_penalty"),
        ({"response_format": {"json_object": True}}, "generation.sampling.response_format.json_object"),
    ],
)
def test_what_the_api_lacks_is_refused_by_name(sampling: dict[str, Any], field: str) -> None:
    """Nothing that changes the answer is dropped in silence."""
    with pytest.raises(FailedPrecondition) as caught:
        _body(chat_request(USER, sampling=sampling))
    assert caught.value.field == field


def test_more_than_one_choice_is_never_dropped() -> None:
    """Fewer answers than asked for would be another answer."""
    with pytest.raises(FailedPrecondition):
        _body(chat_request(USER, sampling={"n": 2}), unsupported=Unsupported.DROP)


@pytest.mark.parametrize(
    "turns",
    [
        ({"role": "ROLE_SYSTEM", "text": "Be brief."},),
        ({"role": "ROLE_ASSISTANT", "tool_calls": [{"id": "1", "name": "f", "arguments_json": "{"}]},),
        ({"role": "ROLE_USER", "content": [{"image": {"data": PIXEL}}]},),
        ({"role": "ROLE_USER", "content": [{"image": {"url": "data:image/png,x"}}]},),
    ],
)
def test_bad_conversations_name_the_message(turns: tuple[dict[str, Any], ...]) -> None:
    """The caller learns which message is wrong."""
    with pytest.raises(InvalidArgument) as caught:
        _body(chat_request(*turns))
    assert (caught.value.field or "").startswith("generation.prompt.chat.messages")


def _start(**usage: Any) -> dict[str, Any]:
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "claude",
        "stop_reason": None, "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 1, **usage},
    }  # fmt: skip
    return {"type": "message_start", "message": message}


def _end(reason: str, **delta: Any) -> tuple[dict[str, Any], ...]:
    ending = {"stop_reason": reason, "stop_sequence": None, **delta}
    usage = {"output_tokens": 7, "output_tokens_details": {"thinking_tokens": 2}}
    return ({"type": "message_delta", "delta": ending, "usage": usage}, {"type": "message_stop"})


def _block(index: int, block: dict[str, Any], *deltas: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return (
        {"type": "content_block_start", "index": index, "content_block": block},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    )


_TEXT = _block(0, {"type": "text", "text": "", "citations": None}, {"type": "text_delta", "text": "Hi"})


def _read(*events: dict[str, Any]) -> tuple[list[pb.ChoiceDelta], pb.GenerationSummary]:
    reader = AnthropicReader()
    deltas: list[pb.ChoiceDelta] = []
    for event in events:
        if event["type"] not in ("ping", "error", "brand_new"):
            _EVENT.validate_python(event)
        deltas += reader.take(SseEvent(event["type"], json.dumps(event)))
    last, summary = reader.end()
    return deltas + last, summary


def test_text_thoughts_and_usage() -> None:
    """Thoughts are not part of the answer; tokens from the cache are part of the prompt."""
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    deltas, summary = _read(
        _start(cache_read_input_tokens=5, cache_creation_input_tokens=3),
        {"type": "ping"},
        {"type": "brand_new"},
        *_block(
            0, thinking, {"type": "thinking_delta", "thinking": "hm"}, {"type": "signature_delta", "signature": "s"}
        ),
        *_block(1, {"type": "text", "text": "", "citations": None}, {"type": "text_delta", "text": "Hello"}),
        *_end("end_turn"),
    )
    assert [(d.text, d.finish_reason) for d in deltas] == [("Hello", 0), ("", pb.FINISH_REASON_STOP)]
    expected = pb.Usage(prompt_tokens=18, completion_tokens=7, cached_tokens=5, reasoning_tokens=2)
    assert summary.usage == expected


def test_tool_calls_arrive_in_pieces() -> None:
    """A call without arguments becomes an empty object."""
    block = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    pieces = ({"type": "input_json_delta", "partial_json": part} for part in ("", '{"ci', 'ty":1}'))
    deltas, _ = _read(
        _start(),
        *_TEXT,
        *_block(1, block, *pieces),
        *_block(2, block | {"id": "toolu_2"}, {"type": "input_json_delta", "partial_json": ""}),
        *_end("tool_use"),
    )
    calls = [call for d in deltas for call in d.tool_calls]
    assert [(c.index, c.id) for c in calls if c.id] == [(0, "toolu_1"), (1, "toolu_2")]
    assert "".join(c.arguments_json for c in calls if c.index == 0) == '{"city":1}'
    assert "".join(c.arguments_json for c in calls if c.index == 1) == "{}"
    assert deltas[-1].finish_reason == pb.FINISH_REASON_TOOL_CALLS


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", pb.FINISH_REASON_STOP),
        ("stop_sequence", pb.FINISH_REASON_STOP),
        ("max_tokens", pb.FINISH_REASON_LENGTH),
        ("model_context_window_exceeded", pb.FINISH_REASON_LENGTH),
        ("tool_use", pb.FINISH_REASON_TOOL_CALLS),
        ("refusal", pb.FINISH_REASON_CONTENT_FILTER),
    ],
)
def test_stop_reasons(reason: str, finish: int) -> None:
    """Each has its word in the contract."""
    block = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    said = _block(0, block) if reason == "tool_use" else _TEXT
    deltas, _ = _read(_start(), *said, *_end(reason))
    assert deltas[-1].finish_reason == finish


def test_calls_and_the_stop_reason_agree() -> None:
    """A choice with calls ends with them, and one without does not."""
    block = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    deltas, _ = _read(_start(), *_block(0, block), *_end("end_turn"))
    assert deltas[-1].finish_reason == pb.FINISH_REASON_TOOL_CALLS
    deltas, _ = _read(_start(), *_TEXT, *_end("tool_use"))
    assert deltas[-1].finish_reason == pb.FINISH_REASON_STOP


def test_a_refusal_is_told_in_the_providers_words() -> None:
    """Where it gives any."""
    details = {"type": "refusal", "category": None, "explanation": "Not this."}
    deltas, _ = _read(_start(), *_end("refusal", stop_details=details))
    assert [d.refusal for d in deltas if d.refusal] == ["Not this."]


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ((_start(), *_TEXT), "PROVIDER_STREAM_ENDED_EARLY"),
        ((_start(), *_TEXT, _end("end_turn")[0]), "PROVIDER_STREAM_ENDED_EARLY"),
        ((_start(), *_TEXT, {"type": "message_stop"}), "PROVIDER_STREAM_ENDED_EARLY"),
        ((_start(), *_end("pause_turn")), "PROVIDER_MALFORMED"),
        (({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},), "PROVIDER_OVERLOADED"),
        (({"type": "error", "error": {"type": "api_error", "message": "boom"}},), "PROVIDER_FAILED"),
    ],
)
def test_what_is_not_an_answer_never_becomes_one(events: tuple[dict[str, Any], ...], reason: str) -> None:
    """No end is invented for a stream that was cut or given up."""
    with pytest.raises(MeshError) as caught:
        _read(*events)
    assert caught.value.reason == reason
