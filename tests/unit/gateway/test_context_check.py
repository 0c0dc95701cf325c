"""Prompts that are longer than any context are told by their bytes, and no others."""

import json
from typing import Any

import pytest

from gateway.core.context_check import check_context
from gateway.core.openai.api_requests import ChatApiRequest, CompletionApiRequest
from gateway.core.openai.errors import refusal_of
from headrace.common.v1.generation_pb2 import Generation
from mesh.errors import InvalidArgument

CONTEXT = 1000
LONG = "x" * (16 * CONTEXT + 1)
USER = {"role": "user", "content": "hi"}


def chat(**changes: Any) -> list[Generation]:
    return ChatApiRequest.decode(json.dumps({"model": "m", "messages": [USER]} | changes).encode()).generations


def completion(prompt: Any) -> list[Generation]:
    return CompletionApiRequest.decode(json.dumps({"model": "m", "prompt": prompt}).encode()).generations


def tool(text: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "description": text}}


CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": json.dumps(LONG)}}


@pytest.mark.parametrize(
    ("generations", "field"),
    [
        (chat(messages=[{"role": "user", "content": LONG}]), "chat.messages"),
        (chat(messages=[{"role": "user", "content": "x" * 100}] * 200), "chat.messages"),
        (chat(messages=[{"role": "user", "content": [{"type": "text", "text": LONG}]}]), "chat.messages"),
        (chat(messages=[USER, {"role": "assistant", "tool_calls": [CALL]}]), "chat.messages"),
        (chat(tools=[tool(LONG)]), "chat.tools"),
        (completion(LONG), "text"),
        (completion(["a", LONG]), "text"),
        (completion([1] * (CONTEXT + 1)), "tokens"),
    ],
)
def test_what_no_context_could_hold_is_named(generations: list[Generation], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_context(generations, CONTEXT)
    assert (caught.value.field, caught.value.reason) == (f"generation.prompt.{field}", "CONTEXT_TOO_LONG")
    check_context(generations, 0)
    check_context(generations, 100 * CONTEXT)


def test_images_are_no_text() -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{LONG}"}}
    check_context(chat(messages=[{"role": "user", "content": [image]}]), CONTEXT)


def test_a_prompt_that_may_fit_is_the_nodes_to_count() -> None:
    check_context(chat(messages=[{"role": "user", "content": LONG[2:]}]), CONTEXT)
    check_context(completion([1] * CONTEXT), CONTEXT)


def test_clients_find_the_words_that_they_look_for() -> None:
    field = "generation.prompt.text"
    error = InvalidArgument(f"{field}: 9 tokens", field=field, reason="CONTEXT_TOO_LONG")
    detail = refusal_of(error, "prompt").detail
    assert detail.code == "context_length_exceeded"
    assert "maximum context length is" in detail.message
    assert "Invalid 'prompt': 9 tokens" in detail.message
