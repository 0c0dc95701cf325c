"""Requests that no provider could read: the caller's fault, named, before anything is sent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inference.core.chat_port import ChatRequest
from inference.core.providers.anthropic_request import AnthropicOptions
from inference.core.providers.anthropic_request import to_call as to_anthropic
from inference.core.providers.call_ids import ANTHROPIC, MISTRAL, OPENAI, IdForm
from inference.core.providers.dialect import HttpCall
from inference.core.providers.gemini_request import GeminiOptions
from inference.core.providers.gemini_request import to_call as to_gemini
from inference.core.providers.openai_request import OpenAIOptions
from inference.core.providers.openai_request import to_call as to_openai
from mesh.errors import InvalidArgument, MeshError
from tests.unit.inference.providers.asking import USER, chat_request

_KINDS = ("openai", "anthropic", "gemini")
_DEEP = '{"a":' + "[" * 5000 + "]" * 5000 + "}"
_DOCUMENTS = {
    "a lone surrogate": '{"s":"\\ud83d"}',
    "a lone surrogate as a name": '{"\\udc00":1}',
    "deep nesting": _DEEP,
    "deep objects": '{"a":' * 3000 + "1" + "}" * 3000,
    "a number out of range": '{"a":1e999}',
}


def _call(kind: str, request: ChatRequest) -> HttpCall:
    if kind == "openai":
        return to_openai(request, OpenAIOptions(model="m"))
    if kind == "anthropic":
        return to_anthropic(request, AnthropicOptions(model="m"))
    return to_gemini(request, GeminiOptions(model="m"))


def _with_call(arguments: str, result: str = "r", call_id: str = "a", answers: str = "a") -> ChatRequest:
    call = {"id": call_id, "name": "f", "arguments_json": arguments}
    return chat_request(
        USER,
        {"role": "ROLE_ASSISTANT", "tool_calls": [call]},
        {"role": "ROLE_TOOL", "tool_call_id": answers, "text": result},
    )


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("document", _DOCUMENTS.values(), ids=_DOCUMENTS.keys())
def test_arguments_name_their_call(kind: str, document: str) -> None:
    """A fault of the caller's, whichever provider it is for."""
    with pytest.raises(InvalidArgument) as caught:
        _call(kind, _with_call(document))
    assert caught.value.field == "generation.prompt.chat.messages[1].tool_calls[0].arguments_json"
    assert caught.value.message.startswith(caught.value.field)


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("document", _DOCUMENTS.values(), ids=_DOCUMENTS.keys())
def test_schemas_name_their_field(kind: str, document: str) -> None:
    """Of a tool, and of the answer's form."""
    tools = [{"name": "e", "parameters_json": "{}"}, {"name": "f", "parameters_json": document}]
    with pytest.raises(InvalidArgument) as caught:
        _call(kind, chat_request(USER, tools=tools))
    assert caught.value.field == "generation.prompt.chat.tools[1].parameters_json"
    form = {"response_format": {"json_schema": document, "name": "x"}}
    with pytest.raises(InvalidArgument) as caught:
        _call(kind, chat_request(USER, sampling=form))
    assert caught.value.field == "generation.sampling.response_format.json_schema"


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("document", [*_DOCUMENTS.values(), "[" * 3000 + "]" * 3000, '"\\ud83d"', "NaN"])
def test_a_tools_result_is_text_whatever_it_holds(kind: str, document: str) -> None:
    """It is sent as it is; JSON in it that nobody could read is no reason to refuse it."""
    call = _call(kind, _with_call("{}", document))
    assert msgspec.json.encode(call.body)


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("number", ["9" * 100, "-1e300", "18446744073709551616"])
def test_large_numbers_are_sent(kind: str, number: str) -> None:
    """They are legal, and every reader can take them."""
    assert msgspec.json.encode(_call(kind, _with_call(f'{{"a":{number}}}')).body)


def test_arguments_that_are_no_json_pass_where_they_are_text() -> None:
    """Models write such, and callers send the conversation back as it was."""
    call = to_openai(_with_call('{"a":'), OpenAIOptions(model="m"))
    assert call.body["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"a":'


def _ids(kind: str, request: ChatRequest, form: IdForm) -> tuple[str, str]:
    if kind == "openai":
        messages: Any = to_openai(request, OpenAIOptions(model="m", call_ids=form)).body["messages"]
        return messages[1]["tool_calls"][0]["id"], messages[2]["tool_call_id"]
    messages = to_anthropic(request, AnthropicOptions(model="m")).body["messages"]
    return messages[1]["content"][0]["id"], messages[2]["content"][0]["tool_use_id"]


@pytest.mark.parametrize(("kind", "form"), [("openai", OPENAI), ("openai", MISTRAL), ("anthropic", ANTHROPIC)])
@pytest.mark.parametrize("given", ["call_abc", "abcDEF123", "a b", "chatcmpl-tool-" + "0" * 32, "ü", ""])
def test_ids_fit_the_provider_that_they_go_to(kind: str, form: IdForm, given: str) -> None:
    """Call and answer keep together, and what fits stays."""
    of_call, of_answer = _ids(kind, _with_call("{}", call_id=given, answers=given), form)
    assert of_call == of_answer
    assert form.pattern.fullmatch(of_call)
    assert (of_call == given) == bool(form.pattern.fullmatch(given))


def test_answers_find_their_calls_at_gemini_by_name() -> None:
    """Also where calls have no ids, or all have the same."""
    calls = [{"id": "", "name": name, "arguments_json": "{}"} for name in "fg"]
    results = [{"role": "ROLE_TOOL", "tool_call_id": "", "text": text} for text in "12"]
    body = to_gemini(
        chat_request(USER, {"role": "ROLE_ASSISTANT", "tool_calls": calls}, *results), GeminiOptions("m")
    ).body
    answers = [part["functionResponse"]["name"] for part in body["contents"][2]["parts"]]
    assert answers == ["f", "g"]
    with pytest.raises(MeshError):
        to_gemini(_with_call("{}", answers="other"), GeminiOptions("m"))
