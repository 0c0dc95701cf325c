"""Which fields of requests are known: null is not set, and the documents say what the code does."""

import json
from pathlib import Path
from typing import Any

import pytest
from openai.types import completion_create_params as completion_params
from openai.types.chat import (
    chat_completion_assistant_message_param,
    chat_completion_system_message_param,
    chat_completion_tool_message_param,
    chat_completion_user_message_param,
    completion_create_params,
)

from gateway.core.openai.api_requests import ChatApiRequest, CompletionApiRequest
from gateway.core.openai.chat_request import ChatCompletionRequest
from gateway.core.openai.completion_request import CompletionRequest
from gateway.core.openai.field_table import fields_of, table
from mesh.errors import InvalidArgument

DOCS = Path(__file__).resolve().parents[3] / "docs/openai-compatibility.md"
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
MESSAGES: dict[str, dict[str, Any]] = {
    "system": {"content": "a"},
    "developer": {"content": "a"},
    "user": {"content": "a"},
    "assistant": {"content": "a"},
    "tool": {"content": "a", "tool_call_id": "a"},
}
REQUIRED = {"model", "messages", "prompt"}


def chat(**changes: Any) -> ChatApiRequest:
    return ChatApiRequest.decode(json.dumps(CHAT | changes).encode())


def top_fields(kind: type[Any]) -> list[str]:
    return [path for path in fields_of(kind) if not {".", "[", "("} & set(path) and path not in REQUIRED]


@pytest.mark.parametrize("name", top_fields(ChatCompletionRequest))
def test_null_is_not_set_for_every_field_of_chat(name: str) -> None:
    assert chat(**{name: None}).generations == chat().generations


@pytest.mark.parametrize("name", top_fields(CompletionRequest))
def test_null_is_not_set_for_every_field_of_completions(name: str) -> None:
    plain = {"model": "m", "prompt": "hi"}
    made = CompletionApiRequest.decode(json.dumps(plain | {name: None}).encode())
    assert made.generations == CompletionApiRequest.decode(json.dumps(plain).encode()).generations


@pytest.mark.parametrize("role", MESSAGES)
def test_null_is_not_set_in_messages(role: str) -> None:
    others = [path for path in fields_of(ChatCompletionRequest) if path.startswith(f"messages[]({role}).")]
    names = {path.removeprefix(f"messages[]({role}).") for path in others}
    names = {name for name in names if "." not in name and "[" not in name} - MESSAGES[role].keys()
    assert len(names) > 8
    with_nulls = MESSAGES[role] | dict.fromkeys(names)
    expected = chat(messages=[{"role": role} | MESSAGES[role]]).generations
    assert chat(messages=[{"role": role} | with_nulls]).generations == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"stream": True, "stream_options": {"include_usage": None, "include_obfuscation": None}},
        {"tools": [{"type": "function", "function": {"name": "f", "description": None, "parameters": None,
                                                     "strict": None}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}, "strict": None,
                                                                    "description": None}}},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b",
                                                                                       "detail": None}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": None}]}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALL | {
            "type": None, "index": None, "provider_specific_fields": None}]}]},
    ],
)  # fmt: skip
def test_null_is_not_set_in_what_lies_deeper(changes: dict[str, Any]) -> None:
    assert chat(**changes).generations


def test_every_field_of_the_official_client_is_known() -> None:
    known = set(fields_of(ChatCompletionRequest))
    assert set(completion_create_params.CompletionCreateParamsBase.__annotations__) - known == set()
    of_completions = set(completion_params.CompletionCreateParamsBase.__annotations__)
    assert of_completions - set(fields_of(CompletionRequest)) == set()
    for role, kind in {
        "system": chat_completion_system_message_param.ChatCompletionSystemMessageParam,
        "user": chat_completion_user_message_param.ChatCompletionUserMessageParam,
        "assistant": chat_completion_assistant_message_param.ChatCompletionAssistantMessageParam,
        "tool": chat_completion_tool_message_param.ChatCompletionToolMessageParam,
    }.items():
        names = set(kind.__annotations__) - {"role"}
        assert {f"messages[]({role}).{name}" for name in names} - known == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [("reasoning_effort", "high"), ("verbosity", "low"), ("audio", {}), ("functions", []), ("web_search_options", {}),
     ("moderation", {})],
)  # fmt: skip
def test_what_is_not_offered_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        chat(**{name: value})
    assert (caught.value.field, caught.value.reason) == (name, "UNSUPPORTED_PARAMETER")
    assert name in caught.value.message


def test_what_other_servers_put_into_messages_may_be_sent_back() -> None:
    extras = {
        "reasoning_content": "t", "reasoning": "t", "reasoning_details": [{"type": "x"}], "annotations": [],
        "thinking_blocks": [{"thinking": "t"}], "provider_specific_fields": {"a": 1}, "parsed": {"a": 1}, "images": [],
    }  # fmt: skip
    call = CALL | {"index": 0, "provider_specific_fields": {"s": "x"}, "extra_content": {"google": {}}}
    history = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y", "tool_calls": [call]} | extras,
        {"role": "tool", "tool_call_id": "a", "name": "f", "content": "r"},
        {"role": "assistant", "content": "z", "tool_calls": []},
    ]
    plain = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "a", "content": "r"},
        {"role": "assistant", "content": "z"},
    ]
    assert chat(messages=history).generations == chat(messages=plain).generations


@pytest.mark.parametrize("field", ["reasoning_content", "tool_calls", "refusal"])
def test_what_an_assistant_says_nobody_else_may(field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        chat(messages=[{"role": "user", "content": "a", field: "x"}])
    assert caught.value.field == f"messages[0].{field}"


def test_the_table_in_the_documents_is_the_codes() -> None:
    text = DOCS.read_text(encoding="utf-8")
    written = text.partition("<!-- fields -->\n")[2].partition("<!-- /fields -->")[0].splitlines()
    assert written == table(), "put this between the marks:\n" + "\n".join(table())
