"""The OpenAI dialect, held against the official client's own types."""

from __future__ import annotations

import json
from typing import Any, get_type_hints

import pytest
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from pydantic import TypeAdapter

from headrace.common.v1 import generation_pb2 as pb
from inference.core.chat_port import ChatRequest
from inference.core.providers.call_ids import FreshIds
from inference.core.providers.openai_request import OpenAIOptions, to_call
from inference.core.providers.openai_response import OpenAIReader
from inference.core.providers.request_fields import Unsupported
from inference.core.providers.sse import SseEvent
from mesh.errors import FailedPrecondition, InvalidArgument, MeshError, Outcome
from tests.unit.inference.providers.asking import IMAGE_TURN, PIXEL, TOOL_TURNS, USER, WEATHER, chat_request

_PARAMS: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsStreaming)
_KNOWN = set(get_type_hints(CompletionCreateParamsStreaming))
_CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def _body(request: ChatRequest, **options: Any) -> dict[str, Any]:
    """The body that is sent, after the official client's types have accepted it whole."""
    body = to_call(request, OpenAIOptions(model="gpt", **options)).body
    _PARAMS.validate_python(body, strict=False)
    assert options or set(body) <= _KNOWN
    return body


def test_sampling_is_passed_on_as_the_caller_wrote_it() -> None:
    """Numbers keep their digits, and zero is a value."""
    sampling = {
        "temperature": 0, "top_p": 0.7, "presence_penalty": 0.1, "frequency_penalty": -0.2, "seed": 2**64 - 1,
        "max_tokens": 5, "stop": ["a", "b"], "n": 2, "logprobs": True, "top_logprobs": 3, "logit_bias": {"7": -1},
    }  # fmt: skip
    body = _body(chat_request(USER, sampling=sampling))
    assert body["temperature"] == 0
    assert body["top_p"] == 0.7
    assert body["seed"] == 2**63 - 1
    assert body["max_completion_tokens"] == 5
    assert body["stop"] == ["a", "b"]
    assert body["logit_bias"] == {"7": -1.0}
    assert (body["n"], body["logprobs"], body["top_logprobs"]) == (2, True, 3)
    assert body["stream_options"] == {"include_usage": True}


def test_unset_fields_are_not_sent() -> None:
    """The provider's defaults hold."""
    assert _body(chat_request(USER)) == {
        "model": "gpt",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "What is the weather in Oslo?"}],
    }


def test_tools_and_their_answers() -> None:
    """A conversation with a call goes out as the API writes one; whole numbers in schemas stay whole."""
    request = chat_request(
        *TOOL_TURNS, tools=[WEATHER], tool_choice={"mode": "MODE_NAMED", "name": "weather"}, parallel_tool_calls=False
    )
    body = _body(request)
    assert body["messages"][2] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
        ],
    }
    assert body["messages"][3] == {"role": "tool", "content": '{"celsius": 3}', "tool_call_id": "call_1"}
    assert body["tools"][0]["function"]["parameters"] == WEATHER["parameters"]
    assert '"minLength": 1,' in json.dumps(body["tools"], sort_keys=True)
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["parallel_tool_calls"] is False


def test_images_by_value_and_by_link() -> None:
    """Bytes become a data URL; links stay links."""
    parts = _body(chat_request(IMAGE_TURN))["messages"][0]["content"]
    assert parts[1]["image_url"] == {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}
    assert parts[2]["image_url"] == {"url": "https://example.org/a.png"}
    assert parts[3]["image_url"] == {"url": f"data:image/png;base64,{PIXEL}"}


def test_structured_output() -> None:
    """A schema goes out under its name."""
    form = {"json_schema": '{"type":"object"}', "name": "reply", "strict": True}
    body = _body(chat_request(USER, sampling={"response_format": form}))
    schema = {"name": "reply", "schema": {"type": "object"}, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema}
    plain = _body(chat_request(USER, sampling={"response_format": {"json_object": True}}))
    assert plain["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"response_format": {"json_schema": "{"}}, "generation.sampling.response_format.json_schema"),
        ({"response_format": {"json_schema": "[]"}}, "generation.sampling.response_format.json_schema"),
        ({"response_format": {"regex": "a+"}}, "generation.sampling.response_format.regex"),
        ({"top_k": 5}, "generation.sampling.top_k"),
        ({"min_p": 0.1}, "generation.sampling.min_p"),
        ({"ignore_eos": True}, "generation.sampling.ignore_eos"),
    ],
)
def test_what_cannot_be_held_is_refused_by_name(sampling: dict[str, Any], field: str) -> None:
    """Nothing that changes the answer is dropped in silence."""
    with pytest.raises((InvalidArgument, FailedPrecondition)) as caught:
        _body(chat_request(USER, sampling=sampling))
    assert caught.value.field == field


def test_servers_that_know_more_are_told_more() -> None:
    """vLLM and its like take the fields that OpenAI refuses."""
    body = _body(chat_request(USER, sampling={"top_k": 5, "min_p": 0.1}), extended_sampling=True)
    assert (body["top_k"], body["min_p"]) == (5, 0.1)
    assert "repetition_penalty" not in body


def test_neutral_values_and_dropped_ones_pass() -> None:
    """A field at its neutral value asks for nothing; the operator may choose to drop the others."""
    assert "top_k" not in _body(chat_request(USER, sampling={"top_k": 0, "repetition_penalty": 1.0}))
    assert "top_k" not in _body(chat_request(USER, sampling={"top_k": 9}), unsupported=Unsupported.DROP)


def test_raw_text_goes_to_the_older_endpoint() -> None:
    """With the older name for the limit, and the API version of Azure."""
    request = chat_request(USER, sampling={"max_tokens": 3, "logprobs": True, "top_logprobs": 2})
    request.generation.prompt.text = "Once upon"
    call = to_call(request, OpenAIOptions(model="m", api_version="2024-10-21"))
    assert (call.path, call.query) == ("/completions", {"api-version": "2024-10-21"})
    assert (call.body["prompt"], call.body["max_tokens"], call.body["logprobs"]) == ("Once upon", 3, 2)
    assert "max_completion_tokens" not in call.body


def _read(*chunks: dict[str, Any] | str, n: int = 1) -> tuple[list[pb.ChoiceDelta], pb.GenerationSummary]:
    reader = OpenAIReader(n, FreshIds("r"))
    deltas: list[pb.ChoiceDelta] = []
    for chunk in chunks:
        if isinstance(chunk, dict) and "error" not in chunk:
            ChatCompletionChunk.model_validate(_CHUNK | chunk, strict=True)
        deltas += reader.take(SseEvent("", chunk if isinstance(chunk, str) else json.dumps(_CHUNK | chunk)))
    last, summary = reader.end()
    return deltas + last, summary


def _choice(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish, **more}]}


_END = (_choice({}, "stop"), "[DONE]")


def test_text_usage_and_finish() -> None:
    """The finish reason comes last, however early the provider said it."""
    usage = {
        "prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 1},
    }  # fmt: skip
    deltas, summary = _read(
        _choice({"role": "assistant", "content": ""}),
        _choice({"content": "Hel"}),
        _choice({"content": "lo"}, "length"),
        {"choices": [], "usage": usage},
        "[DONE]",
    )
    assert [d.text for d in deltas] == ["Hel", "lo", ""]
    assert [d.finish_reason for d in deltas] == [0, 0, pb.FINISH_REASON_LENGTH]
    expected = pb.Usage(prompt_tokens=9, completion_tokens=2, cached_tokens=4, reasoning_tokens=1)
    assert summary.usage == expected


def test_tool_calls_arrive_in_pieces() -> None:
    """Ids and names come once, arguments piece by piece."""
    first = {"index": 0, "id": "call_9", "type": "function", "function": {"name": "weather", "arguments": ""}}
    deltas, _ = _read(
        _choice({"tool_calls": [first]}),
        _choice({"tool_calls": [{"index": 0, "function": {"arguments": '{"ci'}}]}),
        _choice({"tool_calls": [{"index": 0, "function": {"arguments": 'ty":1}'}}]}),
        _choice({}, "tool_calls"),
        "[DONE]",
    )
    calls = [call for d in deltas for call in d.tool_calls]
    assert (calls[0].id, calls[0].name) == ("call_9", "weather")
    assert "".join(call.arguments_json for call in calls) == '{"city":1}'
    assert deltas[-1].finish_reason == pb.FINISH_REASON_TOOL_CALLS


def test_logprobs_and_refusals() -> None:
    """Token bytes are exact; a refusal is its own field."""
    top = {"token": "B", "logprob": -2.0, "bytes": [66]}
    entry = {"token": "\ufffd", "logprob": -0.5, "bytes": [0xC3], "top_logprobs": [top]}
    deltas, _ = _read(
        _choice({"content": "A"}, logprobs={"content": [entry], "refusal": None}),
        _choice({"refusal": "I will not."}),
        *_END,
    )
    token = deltas[0].logprobs[0]
    assert (token.token_id, token.raw, token.logprob) == (-1, b"\xc3", -0.5)
    assert (token.top[0].text, token.top[0].raw) == ("B", b"B")
    assert deltas[1].refusal == "I will not."


def test_older_completions() -> None:
    """The chunks of /completions, with their older log probabilities."""
    logprobs = {"tokens": ["a"], "token_logprobs": [-0.1], "top_logprobs": [{"b": -3.0}]}
    chunk = json.dumps({"choices": [{"index": 0, "text": "a", "finish_reason": "stop", "logprobs": logprobs}]})
    deltas, _ = _read(chunk, "[DONE]")
    assert deltas[0].text == "a"
    assert deltas[0].logprobs[0].top[0].text == "b"


def test_several_choices_end_each_for_itself() -> None:
    """An answer is whole only when every choice is."""
    chunks = (_choice({"content": "x"}, "stop"), _choice({"content": "y"}, index=1))
    with pytest.raises(MeshError) as caught:
        _read(*chunks, "[DONE]", n=2)
    assert caught.value.reason == "PROVIDER_STREAM_ENDED_EARLY"
    deltas, _ = _read(*chunks, _choice({}, "length", index=1), "[DONE]", n=2)
    assert [(d.index, d.finish_reason) for d in deltas[-2:]] == [(0, 1), (1, 2)]


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ((_choice({"content": "x"}, "stop"),), "PROVIDER_STREAM_ENDED_EARLY"),
        ((_choice({"content": "x"}), "[DONE]"), "PROVIDER_STREAM_ENDED_EARLY"),
        (("{broken",), "PROVIDER_MALFORMED"),
        (('{"choices": 7}',), "PROVIDER_MALFORMED"),
        (('{"choices": [{"index": 5, "delta": {}}]}',), "PROVIDER_MALFORMED"),
        (('{"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}',), "PROVIDER_MALFORMED"),
        (({"choices": [], "error": {"code": 502, "message": "upstream"}},), "PROVIDER_FAILED"),
        (({"choices": [], "error": {"type": "overloaded_error"}},), "PROVIDER_OVERLOADED"),
    ],
)
def test_what_is_not_an_answer_never_becomes_one(chunks: tuple[Any, ...], reason: str) -> None:
    """No end is invented for a stream that was cut, garbled or given up."""
    with pytest.raises(MeshError) as caught:
        _read(*chunks)
    assert caught.value.reason == reason
    assert caught.value.outcome in (Outcome.FAULT, Outcome.BACKPRESSURE)


def test_only_work_counts_as_progress() -> None:
    """Empty chunks and the role do not wind the timers up; thoughts do."""
    reader = OpenAIReader(1, FreshIds("r"))
    for delta in ({"role": "assistant", "content": ""}, {}):
        reader.take(SseEvent("", json.dumps(_choice(delta))))
    assert reader.progress == 0
    reader.take(SseEvent("", json.dumps(_choice({"reasoning_content": "hm"}))))
    assert reader.progress == 1
