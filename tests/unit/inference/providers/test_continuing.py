"""Going on from the beginning of an answer: how providers are told, and how what they say joins it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.inference.v1.inference_pb2 import Capabilities
from inference.core.chat_port import ChatRequest
from inference.core.checks import RequestError
from inference.core.continuing import check_continuation, continued_text
from inference.core.providers.anthropic import AnthropicDialect
from inference.core.providers.anthropic_request import AnthropicOptions
from inference.core.providers.dialect import Reader
from inference.core.providers.openai import OpenAIDialect
from inference.core.providers.openai_request import OpenAIOptions
from inference.core.providers.prefill import CutSpace, Echo
from inference.core.providers.sse import SseEvent
from tests.unit.inference.providers.asking import TOOL_TURNS, USER, WEATHER, chat_request

_CAN = Capabilities(chat=True, completion=True, tools=True, continue_text=True)


def _going_on(text: str, *turns: dict[str, Any], **more: Any) -> ChatRequest:
    request = chat_request(*(turns or (USER,)), **more)
    request.generation.resume.add(text=text)
    return request


def _openai(mode: str) -> OpenAIDialect:
    return OpenAIDialect(OpenAIOptions(model="m", continue_text=mode))  # type: ignore[arg-type]  # one of its words


def test_servers_of_vllms_kind() -> None:
    """The last message is the assistant's, and two fields say that it is not over."""
    body = _openai("continue_final_message").call(_going_on("It is ")).body
    assert body["messages"][-1] == {"role": "assistant", "content": "It is "}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_servers_of_mistrals_kind() -> None:
    """The message itself says so."""
    body = _openai("prefix").call(_going_on("It is")).body
    assert body["messages"][-1] == {"role": "assistant", "content": "It is", "prefix": True}
    assert "continue_final_message" not in body


@pytest.mark.parametrize("mode", ["continue_final_message", "prefix"])
def test_raw_text_goes_on_by_itself(mode: str) -> None:
    """It is the prompt's end."""
    request = _going_on(" there was")
    request.generation.prompt.text = "Once upon a time"
    assert _openai(mode).call(request).body["prompt"] == "Once upon a time there was"


@pytest.mark.parametrize("turns", [(USER,), TOOL_TURNS, (USER, {"role": "ROLE_ASSISTANT", "text": "Well."})])
def test_anthropics_answer_begins_with_words(turns: tuple[dict[str, Any], ...]) -> None:
    """Its interface refuses white space at the end, and two turns of one role."""
    messages = AnthropicDialect(AnthropicOptions(model="c")).call(_going_on("It is \n", *turns)).body["messages"]
    assert messages[-1]["role"] == "assistant"
    assert messages[-1]["content"][-1] == {"type": "text", "text": "It is"}
    roles = [message["role"] for message in messages]
    assert all(one != other for one, other in itertools.pairwise(roles))


def test_a_fresh_start_is_asked_as_ever() -> None:
    """Nothing is said of a continuation."""
    for dialect in (_openai("prefix"), _openai("continue_final_message")):
        body = dialect.call(chat_request(USER)).body
        assert [message["role"] for message in body["messages"]] == ["user"]
        assert "continue_final_message" not in body


@pytest.mark.parametrize(
    ("more", "capabilities"),
    [
        ({}, Capabilities(chat=True)),
        ({"sampling": {"n": 2}}, _CAN),
        ({"sampling": {"response_format": {"json_schema": "{}"}}}, _CAN),
        ({"tools": [WEATHER], "tool_choice": {"mode": "MODE_REQUIRED"}}, _CAN),
        ({"tools": [WEATHER], "tool_choice": {"mode": "MODE_NAMED", "name": "weather"}}, _CAN),
    ],
)
def test_what_cannot_go_on_is_refused_by_name(more: dict[str, Any], capabilities: Capabilities) -> None:
    """As something that this model cannot do: another one may."""
    with pytest.raises(RequestError) as caught:
        check_continuation(_going_on("It", **more).generation, capabilities)
    assert caught.value.field == "generation.resume"
    assert caught.value.capability


def test_what_can_go_on_does() -> None:
    """Tools that may be called are no hindrance, as long as none was begun."""
    request = _going_on("It", tools=[WEATHER])
    check_continuation(request.generation, _CAN)
    assert continued_text(request.generation) == "It"
    check_continuation(chat_request(USER).generation, Capabilities())
    with pytest.raises(RequestError):
        AnthropicDialect(AnthropicOptions(model="c")).call(_going_on(" \n"))


def _said(reader: Reader, *pieces: str) -> str:
    """What a caller gets behind what they have."""
    events: list[Any] = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    if not hasattr(reader, "_echo"):
        events = [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in pieces
        ]
        events += [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}]
    else:
        events += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, "[DONE]"]
    deltas = []
    for event in events:
        deltas += reader.take(SseEvent("", event if isinstance(event, str) else json.dumps(event)))
    return "".join(delta.text for delta in [*deltas, *reader.end()[0]])


@pytest.mark.parametrize(
    ("text", "pieces", "gained"),
    [
        ("One, two, three,", (" four",), " four"),
        ("One, two, three,", ("One, two, three,", " four"), " four"),
        ("One, two, three,", ("One,", " two, three, four"), " four"),
        ("One, two, three, ", ("One, two, three,", " four"), "four"),
        ("One, two, three, ", ("One, two, three, ", "four"), "four"),
        ("One, two, three,", ("One, two, and",), "One, two, and"),
        ("One, two, three,", ("One, two",), "One, two"),
        ("One, two, three,", ("One, two, three,",), ""),
        ("1", ("1",), "1"),
        # What a model indents stays: nothing was cut off.
        ("if x:\n    ", ("    y",), "    y"),
    ],
)
def test_a_repeated_beginning_is_left_out(text: str, pieces: tuple[str, ...], gained: str) -> None:
    """Some servers say the text again before they go on; however it is cut, the caller gets what is new."""
    assert _said(_openai("prefix").reader(_going_on(text)), *pieces) == gained


@pytest.mark.parametrize(
    ("text", "pieces", "gained"),
    [
        ("It is ", (" cold",), "cold"),
        ("It is ", ("cold",), "cold"),
        ("a:\n  ", ("\n", "  b"), "b"),
        ("It", (" is",), " is"),
    ],
)
def test_space_that_was_cut_off_is_not_said_twice(text: str, pieces: tuple[str, ...], gained: str) -> None:
    """Anthropic's models put it in again."""
    assert _said(AnthropicDialect(AnthropicOptions(model="c")).reader(_going_on(text)), *pieces) == gained


@given(st.text(" \na", max_size=6), st.text(" \na", max_size=6), st.integers(0, 6))
def test_cut_space_takes_only_what_was_cut(cut: str, text: str, at: int) -> None:
    """However the continuation is split."""
    whole, split = CutSpace(cut), CutSpace(cut)
    joined = split.after(text[:at]) + split.after(text[at:])
    assert joined == whole.after(text)
    assert text.endswith(joined)
    assert cut.startswith(text[: len(text) - len(joined)])


@given(st.text("ab, ", min_size=9, max_size=20), st.text("ab, ", max_size=12), st.lists(st.integers(0, 30), max_size=4))
def test_an_echo_is_found_however_it_is_split(text: str, more: str, cuts: list[int]) -> None:
    """And what is new comes whole."""
    said = text + more
    places = sorted({0, len(said), *(cut % (len(said) + 1) for cut in cuts)})
    echo = Echo(text)
    gained = "".join(echo.after(said[a:b]) for a, b in itertools.pairwise(places)) + echo.end()
    if len(text.strip()) >= 8:
        assert (text + gained).rstrip() == said.rstrip()
