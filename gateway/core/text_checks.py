"""What strings of a conversation nobody could read further on: they are refused before anybody else is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.core.json_text import fault_of
from headrace.common.v1.chat_pb2 import ROLE_TOOL, ChatPrompt, Message
from headrace.common.v1.generation_pb2 import Generation
from mesh.contract_limits import MAX_JSON_DEPTH, MAX_SCHEMA_DEPTH
from mesh.errors import InvalidArgument

_CHAT: Final = "generation.prompt.chat"


def check_texts(generation: Generation) -> None:
    """Raises InvalidArgument, which names the field as the contract spells it."""
    for field, text, max_depth in _texts(generation):
        fault = fault_of(text, max_depth)
        if fault is not None:
            raise InvalidArgument(f"{field}: {fault}", field=field)


def _texts(generation: Generation) -> Iterator[tuple[str, str, int]]:
    """The JSON that the generation holds as text, each with its field and its levels at most."""
    if generation.prompt.HasField("chat"):
        yield from _chat_texts(generation.prompt.chat)
    form = generation.sampling.response_format
    if form.json_schema:
        yield "generation.sampling.response_format.json_schema", form.json_schema, MAX_SCHEMA_DEPTH


def _chat_texts(chat: ChatPrompt) -> Iterator[tuple[str, str, int]]:
    for i, tool in enumerate(chat.tools):
        yield f"{_CHAT}.tools[{i}].parameters_json", tool.parameters_json, MAX_SCHEMA_DEPTH
    for i, message in enumerate(chat.messages):
        for k, call in enumerate(message.tool_calls):
            yield f"{_CHAT}.messages[{i}].tool_calls[{k}].arguments_json", call.arguments_json, MAX_JSON_DEPTH
        if message.role == ROLE_TOOL and (result := _result(message)):
            yield f"{_CHAT}.messages[{i}].content", result, MAX_JSON_DEPTH


def _result(message: Message) -> str:
    """A tool's result where it is JSON, which some providers are given as such."""
    text = "".join(part.text for part in message.content)
    return text if text.lstrip()[:1] in ("{", "[") else ""
