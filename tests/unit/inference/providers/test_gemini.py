"""The Gemini dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.common.v1 import generation_pb2 as pb
from inference.core.chat_port import ChatRequest
from inference.core.providers.call_ids import FreshIds
from inference.core.providers.gemini import GeminiDialect
from inference.core.providers.gemini_request import GeminiOptions
from inference.core.providers.gemini_response import GeminiReader
from inference.core.providers.request_fields import Unsupported
from inference.core.providers.sse import SseEvent
from mesh.errors import FailedPrecondition, InvalidArgument, MeshError
from tests.unit.inference.providers.asking import IMAGE_TURN, PIXEL, TOOL_TURNS, USER, WEATHER, chat_request

_IDS = FreshIds("r")


def _body(request: ChatRequest, unsupported: Unsupported = Unsupported.REFUSE) -> dict[str, Any]:
    return GeminiDialect(GeminiOptions("gemini-x", unsupported)).call(request).body


def test_the_call_names_the_model_and_asks_for_events() -> None:
    """A plain question."""
    call = GeminiDialect(GeminiOptions("gemini-x")).call(chat_request(USER))
    assert (call.path, call.query) == ("/models/gemini-x:streamGenerateContent", {"alt": "sse"})
    assert call.body == {"contents": [{"role": "user", "parts": [{"text": "What is the weather in Oslo?"}]}]}


def test_sampling() -> None:
    """Every field that the API has."""
    sampling = {
        "temperature": 0, "top_p": 0.7, "top_k": 3, "seed": 2**31 + 5, "max_tokens": 5, "stop": ["a"], "n": 2,
        "logprobs": True, "top_logprobs": 4, "presence_penalty": 0.5, "frequency_penalty": 0.25,
        "response_format": {"json_schema": '{"type":"object"}'},
    }  # fmt: skip
    assert _body(chat_request(USER, sampling=sampling))["generationConfig"] == {
        "temperature": 0, "topP": 0.7, "topK": 3, "seed": 5, "maxOutputTokens": 5, "stopSequences": ["a"],
        "candidateCount": 2, "responseLogprobs": True, "logprobs": 4, "presencePenalty": 0.5,
        "frequencyPenalty": 0.25, "responseMimeType": "application/json", "responseJsonSchema": {"type": "object"},
    }  # fmt: skip


def test_tools_and_their_answers() -> None:
    """A tool's answer names its function; what is no object is wrapped into one."""
    turns = [*TOOL_TURNS, {"role": "ROLE_TOOL", "tool_call_id": "call_1", "text": "cold"}]
    request = chat_request(*turns, tools=[WEATHER], tool_choice={"mode": "MODE_NAMED", "name": "weather"})
    body = _body(request)
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
    call = body["contents"][1]["parts"][0]
    assert call["functionCall"] == {"name": "weather", "args": {"city": "Oslo"}}
    assert call["thoughtSignature"]
    assert [part["functionResponse"]["response"] for part in body["contents"][2]["parts"]] == [
        {"celsius": 3},
        {"result": "cold"},
    ]
    assert body["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"] == WEATHER["parameters"]
    config = {"mode": "ANY", "allowedFunctionNames": ["weather"]}
    assert body["toolConfig"] == {"functionCallingConfig": config}


def test_images_by_value_and_by_link() -> None:
    """Bytes go inline, links as files."""
    parts = _body(chat_request(IMAGE_TURN))["contents"][0]["parts"]
    assert parts[1] == {"inlineData": {"mimeType": "image/png", "data": PIXEL}}
    assert parts[2] == {"fileData": {"fileUri": "https://example.org/a.png"}}


@pytest.mark.parametrize(
    ("sampling", "chat", "field"),
    [
        ({"min_p": 0.1}, {}, "generation.sampling.min_p"),
        ({"logit_bias": {"1": 1}}, {}, "generation.sampling.logit_bias"),
        ({"response_format": {"grammar": "x"}}, {}, "generation.sampling.response_format.grammar"),
        ({}, {"tools": [WEATHER], "parallel_tool_calls": False}, "generation.prompt.chat.parallel_tool_calls"),
    ],
)
def test_what_the_api_lacks_is_refused_by_name(sampling: dict[str, Any], chat: dict[str, Any], field: str) -> None:
    """Nothing that changes the answer is dropped in silence."""
    with pytest.raises(FailedPrecondition) as caught:
        _body(chat_request(USER, sampling=sampling, **chat))
    assert caught.value.field == field


def test_an_answer_to_no_call_is_refused() -> None:
    """The API finds calls by name, so an unknown id cannot be sent."""
    with pytest.raises(InvalidArgument) as caught:
        _body(chat_request(USER, {"role": "ROLE_TOOL", "tool_call_id": "nope", "text": "1"}))
    assert caught.value.field == "generation.prompt.chat.messages[1].tool_call_id"


def _read(*chunks: Any, n: int = 1) -> tuple[list[pb.ChoiceDelta], pb.GenerationSummary]:
    reader = GeminiReader(n, _IDS)
    deltas: list[pb.ChoiceDelta] = []
    for chunk in chunks:
        deltas += reader.take(SseEvent("", chunk if isinstance(chunk, str) else json.dumps(chunk)))
    last, summary = reader.end()
    return deltas + last, summary


def _parts(*parts: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": list(parts)}, **more}
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})]}


def test_text_thoughts_and_usage() -> None:
    """Thoughts are not part of the answer, and are counted as output."""
    usage = {
        "promptTokenCount": 8, "candidatesTokenCount": 3, "thoughtsTokenCount": 4, "cachedContentTokenCount": 2,
        "totalTokenCount": 15,
    }  # fmt: skip
    deltas, summary = _read(
        _parts({"text": "hm", "thought": True}),
        _parts({"text": "Hel"}, {"text": "lo"}),
        _parts({"text": "!"}, finish="STOP") | {"usageMetadata": usage, "modelVersion": "g"},
    )
    assert "".join(d.text for d in deltas) == "Hello!"
    assert deltas[-1].finish_reason == pb.FINISH_REASON_STOP
    expected = pb.Usage(prompt_tokens=8, completion_tokens=7, cached_tokens=2, reasoning_tokens=4)
    assert summary.usage == expected


def test_tool_calls_get_ids() -> None:
    """STOP after calls means calls; ids are made where the API gives none."""
    call = {"functionCall": {"name": "weather", "args": {"city": "Oslo"}}}
    deltas, _ = _read(_parts(call), _parts({"functionCall": {"name": "now", "id": "own"}}), _parts(finish="STOP"))
    calls = [call for d in deltas for call in d.tool_calls]
    assert [(c.index, c.id, c.arguments_json) for c in calls] == [
        (0, _IDS.make(0, 0), '{"city":"Oslo"}'),
        (1, "own", "{}"),
    ]
    assert deltas[-1].finish_reason == pb.FINISH_REASON_TOOL_CALLS


def test_logprobs() -> None:
    """Token ids are known here."""
    chosen = {"token": "a", "tokenId": 5, "logProbability": -0.25}
    other = {"token": "b", "tokenId": 6, "logProbability": -2.5}
    result = {"chosenCandidates": [chosen], "topCandidates": [{"candidates": [chosen, other]}]}
    deltas, _ = _read(_parts({"text": "a"}, finish="MAX_TOKENS", logprobsResult=result))
    token = deltas[0].logprobs[0]
    assert (token.token_id, token.logprob, token.top[1].token_id) == (5, -0.25, 6)
    assert deltas[-1].finish_reason == pb.FINISH_REASON_LENGTH


def test_a_refused_prompt_is_a_filtered_answer() -> None:
    """Without candidates, every choice is told why."""
    deltas, _ = _read({"promptFeedback": {"blockReason": "SAFETY"}}, n=2)
    assert [d.index for d in deltas if d.refusal] == [0, 1]
    assert {d.finish_reason for d in deltas[-2:]} == {pb.FINISH_REASON_CONTENT_FILTER}


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ((_parts({"text": "x"}),), "PROVIDER_STREAM_ENDED_EARLY"),
        ((), "PROVIDER_STREAM_ENDED_EARLY"),
        ((_parts(finish="MALFORMED_FUNCTION_CALL"),), "MODEL_FAILED"),
        ((_parts(finish="OTHER"),), "MODEL_FAILED"),
        (("[1",), "PROVIDER_MALFORMED"),
        (({"error": {"code": 503, "status": "UNAVAILABLE", "message": "overloaded"}},), "PROVIDER_FAILED"),
        (({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}},), "PROVIDER_RATE_LIMITED"),
    ],
)
def test_what_is_not_an_answer_never_becomes_one(chunks: tuple[Any, ...], reason: str) -> None:
    """No end is invented for a stream that was cut, garbled or given up."""
    with pytest.raises(MeshError) as caught:
        _read(*chunks)
    assert caught.value.reason == reason
