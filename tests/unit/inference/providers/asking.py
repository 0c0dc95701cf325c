"""Generations as the tests ask them."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format

from headrace.common.v1.generation_pb2 import Generation, RequestContext
from inference.core.chat_port import ChatRequest


def chat_request(*messages: dict[str, Any], sampling: dict[str, Any] | None = None, **chat: Any) -> ChatRequest:
    """A request in the contract's JSON form; plain `text` stands for one text part."""
    turns = [
        {key: value for key, value in message.items() if key != "text"}
        | ({"content": [{"text": message["text"]}]} if "text" in message else {})
        for message in messages
    ]
    document = {"model": "m", "prompt": {"chat": {"messages": turns, **chat}}, "sampling": sampling or {}}
    return ChatRequest(RequestContext(request_id="r-1"), json_format.ParseDict(document, Generation()))


USER: dict[str, Any] = {"role": "ROLE_USER", "text": "What is the weather in Oslo?"}
WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "minLength": 1}},
        "required": ["city"],
    },
}
# A whole conversation with a call and its answer.
TOOL_TURNS: tuple[dict[str, Any], ...] = (
    {"role": "ROLE_SYSTEM", "text": "Be brief."},
    USER,
    {
        "role": "ROLE_ASSISTANT",
        "tool_calls": [{"id": "call_1", "name": "weather", "arguments_json": '{"city":"Oslo"}'}],
    },
    {"role": "ROLE_TOOL", "tool_call_id": "call_1", "text": '{"celsius": 3}'},
)
PIXEL = "iVBORw0KGgo="
IMAGE_TURN: dict[str, Any] = {
    "role": "ROLE_USER",
    "content": [
        {"text": "What is this?"},
        {"image": {"data": PIXEL, "media_type": "image/png", "detail": "low"}},
        {"image": {"url": "https://example.org/a.png"}},
        {"image": {"url": f"data:image/png;base64,{PIXEL}"}},
    ],
}
