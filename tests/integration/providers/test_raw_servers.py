"""Engines against servers that send exact bytes: keys, redirects, cut bodies, and the other dialects over HTTP."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from headrace.common.v1 import generation_pb2 as pb
from inference.adapters.providers import anthropic, gemini, openai
from inference.adapters.providers.settings import ProviderSettings
from inference.core.chat_port import ChatEngine
from mesh.config import ConfigErrors, Secret, load
from mesh.errors import MeshError, Outcome
from tests.integration.providers.serving import CHUNKED, EVENTS, chunk, event, reply, serving
from tests.unit.inference.providers.asking import USER, chat_request

_KEY = "sk-very-secret-key"
_MODULES: dict[str, tuple[Any, type[ProviderSettings]]] = {
    "openai": (openai, openai.OpenAISettings),
    "anthropic": (anthropic, anthropic.AnthropicSettings),
    "gemini": (gemini, gemini.GeminiSettings),
}
_ANTHROPIC = (
    event({"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}}, "message_start"),
    event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    event({"type": "ping"}, "ping"),
    event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hej"}}),
    event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
    event({"type": "message_stop"}, "message_stop"),
)
_GEMINI = (
    event({"candidates": [{"content": {"parts": [{"text": "Hej"}]}}]}),
    event({"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 3}}),
)
_OPENAI = (
    event({"choices": [{"index": 0, "delta": {"content": "Hej"}}]}),
    event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
    event("[DONE]"),
)
_ANSWERS = {"openai": _OPENAI, "anthropic": _ANTHROPIC, "gemini": _GEMINI}


def _engine(kind: str, url: str, **settings: Any) -> ChatEngine:
    module, settings_type = _MODULES[kind]
    given = {"upstream_model": "up", "base_url": url, "api_key": Secret(_KEY)} | settings
    engine: ChatEngine = module.build(settings_type(**given)).engine
    return engine


async def _ask(engine: ChatEngine) -> tuple[str, MeshError | None]:
    text = ""
    try:
        await engine.start()
        async for happened in engine.generate(chat_request(USER)):
            text += happened.text if isinstance(happened, pb.ChoiceDelta) else ""
    except MeshError as error:
        return text, error
    finally:
        await engine.close()
    return text, None


@pytest.mark.parametrize("kind", _MODULES)
async def test_each_dialect_over_http(kind: str) -> None:
    """One byte at a time, chunked, with CRLF line ends: the answer is whole and the key is where it belongs."""
    body = b"".join(_ANSWERS[kind]).replace(b"\n", b"\r\n")
    pieces = [chunk(body[i : i + 1]) for i in range(len(body))]
    async with serving(CHUNKED, *pieces, chunk(b"")) as server:
        text, error = await _ask(_engine(kind, server.url))
    assert (text, error) == ("Hej", None)
    asked = server.asked[0]
    target, header = {
        "openai": ("/v1/chat/completions", ("authorization", f"Bearer {_KEY}")),
        "anthropic": ("/v1/messages", ("x-api-key", _KEY)),
        "gemini": ("/v1/models/up:streamGenerateContent?alt=sse", ("x-goog-api-key", _KEY)),
    }[kind]
    assert asked.target == target
    assert asked.headers[header[0]] == header[1]
    assert _KEY not in json.dumps(asked.body) + asked.target
    if kind == "anthropic":
        assert asked.headers["anthropic-version"] == "2026-10-21"


@pytest.mark.parametrize("kind", _MODULES)
@pytest.mark.parametrize("kept", [0, 1])
async def test_a_cut_body_is_never_an_answer(kind: str, kept: int) -> None:
    """Cut before and after the first token, with the connection simply gone."""
    sent = _ANSWERS[kind][: {"anthropic": 4}.get(kind, 1)] if kept else ()
    async with serving(CHUNKED, *(chunk(piece) for piece in sent)) as server:
        text, error = await _ask(_engine(kind, server.url))
    assert text == ("Hej" if kept else "")
    assert error is not None
    assert error.outcome is (Outcome.MIDSTREAM_FAULT if kept else Outcome.FAULT)
    assert error.reason == "PROVIDER_STREAM_BROKEN"


@pytest.mark.parametrize("kind", _MODULES)
async def test_a_body_that_ends_politely_but_early_is_no_answer(kind: str) -> None:
    """The last event is missing: no finish reason is invented."""
    sent = b"".join(_ANSWERS[kind][:-1])
    async with serving(CHUNKED, chunk(sent), chunk(b"")) as server:
        text, error = await _ask(_engine(kind, server.url))
    assert text == "Hej"
    assert error is not None
    assert (error.reason, error.outcome) == ("PROVIDER_STREAM_ENDED_EARLY", Outcome.MIDSTREAM_FAULT)


_USAGE = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})


@pytest.mark.parametrize(
    "end",
    [
        (chunk(b""),),
        # The empty line behind the last event is missing.
        (chunk(b"data: [DONE]"), chunk(b"")),
        (chunk(b"data: [DO"), chunk(b"")),
        # The server keeps the connection open, or breaks it, after all is said.
        (None,),
        (),
    ],
    ids=["closed", "no empty line", "cut in the last event", "kept open", "broken"],
)
async def test_an_answer_with_finish_and_usage_is_whole(end: tuple[bytes | None, ...]) -> None:
    """However the stream ends from there on: nothing of the answer can be missing."""
    async with serving(CHUNKED, *(chunk(piece) for piece in (*_OPENAI[:2], _USAGE)), *end) as server:
        text, error = await _ask(_engine("openai", server.url))
    assert (text, error) == ("Hej", None)


async def test_without_usage_being_asked_for_a_finish_and_a_clean_end_are_enough() -> None:
    """Of servers that refuse `stream_options`; a broken connection is still one."""
    async with serving(CHUNKED, *(chunk(piece) for piece in _OPENAI[:2]), chunk(b"")) as server:
        text, error = await _ask(_engine("openai", server.url, stream_usage=False))
    assert (text, error) == ("Hej", None)
    async with serving(CHUNKED, chunk(_OPENAI[0])) as server:
        _, error = await _ask(_engine("openai", server.url, stream_usage=False))
    assert error is not None
    assert error.reason == "PROVIDER_STREAM_BROKEN"


@pytest.mark.parametrize("kind", _MODULES)
@pytest.mark.parametrize("place", [0, 1])
async def test_one_bad_chunk_among_good_ones(kind: str, place: int) -> None:
    """Is read over where nothing of the answer was in it; a second one, or one with text, ends the answer."""
    good = _ANSWERS[kind]
    at = place and {"anthropic": 4}.get(kind, 1)
    bad = b"data: {garbled\n\n"
    for broken, reason in ((bad, None), (bad + bad, "PROVIDER_MALFORMED")):
        async with serving(CHUNKED, *map(chunk, (*good[:at], broken, *good[at:])), chunk(b"")) as server:
            text, error = await _ask(_engine(kind, server.url))
        assert (error and error.reason) == reason
        assert reason or text == "Hej"


@pytest.mark.parametrize("kind", _MODULES)
async def test_a_bad_chunk_with_text_in_it_ends_the_answer(kind: str) -> None:
    """It would be missing from the answer, and nobody would know."""
    good = _ANSWERS[kind]
    text = next(piece for piece in good if b"Hej" in piece)
    async with serving(CHUNKED, *map(chunk, (*good[:-2], text[:-6] + b"\n\n", *good[-2:])), chunk(b"")) as server:
        _, error = await _ask(_engine(kind, server.url))
    assert error is not None
    assert error.reason == "PROVIDER_MALFORMED"


async def test_odd_but_legal_streams_are_read() -> None:
    """A byte order mark, comments, empty events, data over two lines, and a character in two halves."""
    halves = [
        f'data: {{"choices":[{{"delta":{{"content":"{half}"}}}}]}}\n\n'.encode() for half in ("\\ud83c", "\\udf0d")
    ]
    two_lines = b'data: {"choices": [{"index": 0,\ndata: "delta": {"content": "!"}}]}\n\n'
    body = b"\xef\xbb\xbf: hello\n\ndata:\n\ndata: \n\n" + b"".join(halves) + two_lines + b"".join(_OPENAI[1:])
    async with serving(EVENTS, body) as server:
        text, error = await _ask(_engine("openai", server.url))
    assert (text, error) == ("\U0001f30d!", None)


@pytest.mark.parametrize("word", ["MALFORMED_FUNCTION_CALL", "OTHER", "UNEXPECTED_TOOL_CALL", "BRAND_NEW"])
@pytest.mark.parametrize("begun", [0, 1])
async def test_what_the_model_garbled_is_no_fault_of_the_node(word: str, begun: int) -> None:
    """Not before and not after the first token; the caller learns the provider's words for it."""
    last = event({"candidates": [{"finishReason": word, "finishMessage": "Malformed function call: print(x)"}]})
    async with serving(CHUNKED, *map(chunk, (*_GEMINI[:begun], last)), chunk(b"")) as server:
        _, error = await _ask(_engine("gemini", server.url))
    assert error is not None
    assert (error.reason, error.outcome) == ("MODEL_FAILED", Outcome.CALLER_FAULT)
    assert f"({word}): Malformed function call: print(x)" in error.message
    assert error.metadata["finish_reason"] == word


async def test_the_key_does_not_follow_a_redirect() -> None:
    """A redirect is a misconfiguration, not a place to send the key to."""
    async with serving(EVENTS) as other, serving(reply(307, location=other.url)) as server:
        _, error = await _ask(_engine("openai", server.url))
    assert error is not None
    assert error.reason == "PROVIDER_MISCONFIGURED"
    assert not other.asked


@pytest.mark.parametrize("status", [400, 401, 422])
async def test_the_key_is_in_no_error(status: int) -> None:
    """Not even where the provider repeats it."""
    async with serving(reply(status, {"error": {"message": f"Incorrect API key: {_KEY}"}})) as server:
        _, error = await _ask(_engine("openai", server.url))
    assert error is not None
    assert _KEY not in f"{error!r} {error.message} {error.metadata} {error.__cause__!r}"


async def test_an_answer_without_a_stream_is_refused() -> None:
    """A server that ignores `stream` does not become an empty answer."""
    async with serving(reply(200, {"choices": []})) as server:
        _, error = await _ask(_engine("openai", server.url))
    assert error is not None
    assert error.reason == "PROVIDER_MALFORMED"


async def test_an_endless_line_is_refused() -> None:
    """What a broken server sends does not fill the node's memory."""
    async with serving(EVENTS, b"data: " + b"x" * (2 << 20)) as server:
        _, error = await _ask(_engine("openai", server.url))
    assert error is not None
    assert error.reason == "PROVIDER_MALFORMED"


_ENDLESS = {
    "openai": event({"choices": [{"index": 0, "delta": {"content": "word "}}]}),
    "anthropic": event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}}),
    "gemini": event({"candidates": [{"content": {"parts": [{"text": "word "}]}}]}),
    # A sign of work, and no text.
    "thoughts": event({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}),
}


@pytest.mark.parametrize("kind", _ENDLESS)
@pytest.mark.parametrize("limit", [4, None])
async def test_a_provider_that_knows_no_end_is_cut(kind: str, limit: int | None) -> None:
    """One that ignores its caller's limit, or the context's: the answer ends for its length, and the connection too."""
    async with serving(EVENTS, *[_ENDLESS[kind]] * 20_000, None) as server:
        engine = _engine("openai" if kind == "thoughts" else kind, server.url, context_length=100)
        sampling = {"max_tokens": limit} if limit else {}
        events = [event async for event in engine.generate(chat_request(USER, sampling=sampling))]
        async with asyncio.timeout(20):
            await server.left.wait()
        await engine.close()
    *deltas, last, summary = events
    assert isinstance(last, pb.ChoiceDelta)
    assert isinstance(summary, pb.GenerationSummary)
    assert last.finish_reason == pb.FINISH_REASON_LENGTH
    assert 0 < summary.usage.completion_tokens <= (limit or 100)
    assert sum(len(delta.text) for delta in deltas if isinstance(delta, pb.ChoiceDelta)) < 20_000


async def test_an_answer_has_a_bound_in_bytes() -> None:
    """Whatever its limit in tokens is."""
    async with serving(EVENTS, *[_ENDLESS["openai"]] * 20_000, None) as server:
        engine = _engine("openai", server.url, max_answer_bytes=1000)
        events = [event async for event in engine.generate(chat_request(USER))]
        await engine.close()
    text = "".join(event.text for event in events if isinstance(event, pb.ChoiceDelta))
    assert 1000 < len(text) < 1010


async def test_a_rotated_key_is_read_again(tmp_path: Path) -> None:
    """A mounted file that was replaced gives the next call its new key; an empty one is the node's fault."""
    file = tmp_path / "key"
    file.write_text("first-key\n")
    async with serving(EVENTS, *_OPENAI) as server:
        engine = _engine("openai", server.url, api_key=Secret(""), api_key_file=file)
        await engine.start()
        for key in ("first-key", "second-key"):
            replacement = tmp_path / "new"
            replacement.write_text(key)
            replacement.replace(file)
            assert [event async for event in engine.generate(chat_request(USER))]
        replacement.write_text("")
        replacement.replace(file)
        with pytest.raises(MeshError) as caught:
            [event async for event in engine.generate(chat_request(USER))]
        await engine.close()
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer first-key", "Bearer second-key"]
    assert caught.value.reason == "PROVIDER_KEY_MISSING"
    with pytest.raises(ValueError, match="key file"):
        await _engine("openai", server.url, api_key=Secret(""), api_key_file=file).start()


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({}, "H_UPSTREAM_MODEL: required"),
        ({"H_UPSTREAM_MODEL": "m", "H_BASE_URL": "ftp://x"}, "base_url"),
        ({"H_UPSTREAM_MODEL": "m", "H_BASE_URL": "http://example.org/v1", "H_API_KEY": _KEY}, "https only"),
        ({"H_UPSTREAM_MODEL": "m", "H_BASE_URL": "https://u:p@example.org/v1"}, "credentials"),
        ({"H_UPSTREAM_MODEL": "m", "H_API_KEY": _KEY, "H_API_KEY_FILE": "x"}, "give one of them"),
        ({"H_UPSTREAM_MODEL": "m", "H_CONNECT_S": "0"}, "H_CONNECT_S"),
        # Waiting is timed by the router.
        ({"H_UPSTREAM_MODEL": "m", "H_GAP_S": "9"}, "H_GAP_S"),
        ({"H_UPSTREAM_MODEL": "m", "H_CAPABILITIES": "chat,flying"}, "H_CAPABILITIES"),
    ],
)
def test_wrong_settings_are_refused_in_words(env: dict[str, str], says: str) -> None:
    """The message names the setting, and never a key."""
    with pytest.raises(ConfigErrors, match=says) as caught:
        load(openai.OpenAISettings, "H_", env)
    assert _KEY not in str(caught.value)


def test_a_models_name_cannot_leave_its_place_in_the_path() -> None:
    """Gemini's model is a part of the URL."""
    with pytest.raises(ValueError, match="upstream_model"):
        gemini.GeminiSettings(upstream_model="../x", base_url="https://example.org")


@pytest.mark.parametrize(
    ("url", "field"), [("https://api.openai.com/v1", "max_completion_tokens"), ("http://127.0.0.1:1/v1", "max_tokens")]
)
def test_the_limits_name_follows_the_server(url: str, field: str) -> None:
    """OpenAI's newer models refuse the older name, and most other servers know only that."""
    engine = _engine("openai", url)
    request = chat_request(USER, sampling={"max_tokens": 4})
    assert field in engine._dialect.call(request).body  # type: ignore[attr-defined]  # what would be sent
