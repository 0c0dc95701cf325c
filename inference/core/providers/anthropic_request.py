"""A generation as Anthropic's Messages API wants it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from headrace.common.v1 import chat_pb2
from headrace.common.v1.chat_pb2 import ChatPrompt, ContentPart, Message, ToolCall
from headrace.common.v1.generation_pb2 import Sampling
from inference.core.chat_port import ChatRequest
from inference.core.continuing import continued_text
from inference.core.providers.call_ids import ANTHROPIC, CallIds
from inference.core.providers.dialect import HttpCall
from inference.core.providers.prefill import without_last_space
from inference.core.providers.request_fields import (
    CHAT,
    FORMAT,
    SAMPLING,
    Lacking,
    Unsupported,
    image_data,
    is_text,
    json_object,
    optional,
    parameters,
    response_schema,
    without_none,
)
from mesh.errors import InvalidArgument

# The last version whose requests may say how tokens are drawn.
_VERSION_WITH_SAMPLING: Final = "2023-06-01"
_LACKING: Final = {
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "ignore_eos": False,
}
_SYSTEM: Final = (chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_DEVELOPER)
_CHOICES: Final = {
    chat_pb2.ToolChoice.MODE_NONE: "none",
    chat_pb2.ToolChoice.MODE_AUTO: "auto",
    chat_pb2.ToolChoice.MODE_UNSPECIFIED: "auto",
    chat_pb2.ToolChoice.MODE_REQUIRED: "any",
    chat_pb2.ToolChoice.MODE_NAMED: "tool",
}


@dataclass(frozen=True, slots=True)
class AnthropicOptions:
    """How the node asks."""

    model: str
    unsupported: Unsupported = Unsupported.REFUSE
    # The anthropic-version header.
    api_version: str = "2026-10-21"
    # The API wants a limit; this one is sent where the caller set none.
    default_max_tokens: int = 4096


def to_call(request: ChatRequest, options: AnthropicOptions) -> HttpCall:
    """The whole request. Raises MeshError naming the field at fault."""
    generation = request.generation
    chat, sampling = generation.prompt.chat, generation.sampling
    body = without_none(
        {
            "model": options.model,
            "stream": True,
            "max_tokens": optional(sampling, "max_tokens") or options.default_max_tokens,
            "system": _system(chat),
            "messages": _with_prefill(_messages(chat), continued_text(generation)),
            "stop_sequences": list(sampling.stop) or None,
            "output_config": _output_config(sampling),
            **_sampling(sampling, options),
            **_tools(chat),
        }
    )
    return HttpCall("/messages", body, headers={"anthropic-version": options.api_version})


def _sampling(sampling: Sampling, options: AnthropicOptions) -> dict[str, Any]:
    lacking = Lacking(options.unsupported, "Anthropic's API")
    lacking.check(sampling, _LACKING)
    if sampling.HasField("seed"):
        lacking.lacks(f"{SAMPLING}.seed")
    if sampling.logit_bias:
        lacking.lacks(f"{SAMPLING}.logit_bias")
    if sampling.n > 1:
        lacking.never(f"{SAMPLING}.n")
    values = {name: optional(sampling, name) for name in ("temperature", "top_p", "top_k")}
    if options.api_version == _VERSION_WITH_SAMPLING:
        if (values["temperature"] or 0.0) > 1.0:
            lacking.lacks(f"{SAMPLING}.temperature")
            values["temperature"] = 1.0
        return values | {"top_k": values["top_k"] or None}
    for name, neutral in (("temperature", 1.0), ("top_p", 1.0), ("top_k", 0)):
        if values[name] not in (None, neutral):
            lacking.lacks(f"{SAMPLING}.{name}")
    return {}


def _system(chat: ChatPrompt) -> list[dict[str, Any]] | None:
    """The instructions, wherever in the conversation they stand: the API keeps them apart."""
    found = [part.text for m in chat.messages if m.role in _SYSTEM for part in m.content if is_text(part)]
    return [{"type": "text", "text": text} for text in found] or None


def _messages(chat: ChatPrompt) -> list[dict[str, Any]]:
    """The turns. Neighbours of one role become one turn: the results of parallel calls have to stand together."""
    turns: list[dict[str, Any]] = []
    ids = CallIds(ANTHROPIC)
    for i, message in enumerate(chat.messages):
        if message.role in _SYSTEM:
            continue
        role = "assistant" if message.role == chat_pb2.ROLE_ASSISTANT else "user"
        blocks = _blocks(message, f"{CHAT}.messages[{i}]", ids)
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns:
        field = f"{CHAT}.messages"
        raise InvalidArgument(f"{field}: Anthropic's API wants a message besides instructions", field=field)
    return turns


def _with_prefill(turns: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The turns with the beginning of the answer behind them. The API refuses white space at its end."""
    if not text:
        return turns
    block = {"type": "text", "text": without_last_space(text)[0]}
    if turns[-1]["role"] == "assistant":
        turns[-1]["content"].append(block)
        return turns
    return [*turns, {"role": "assistant", "content": [block]}]


def _blocks(message: Message, field: str, ids: CallIds) -> list[dict[str, Any]]:
    blocks = [
        _block(part, f"{field}.content[{i}]")
        for i, part in enumerate(message.content)
        if part.WhichOneof("part") == "image" or is_text(part)
    ]
    if message.role == chat_pb2.ROLE_TOOL:
        return [{"type": "tool_result", "tool_use_id": ids.of_answer(message.tool_call_id), "content": blocks}]
    return blocks + [_tool_use(call, f"{field}.tool_calls[{i}]", ids) for i, call in enumerate(message.tool_calls)]


def _block(part: ContentPart, field: str) -> dict[str, Any]:
    if part.WhichOneof("part") == "text":
        return {"type": "text", "text": part.text}
    data = image_data(part.image, f"{field}.image")
    if data is None:
        return {"type": "image", "source": {"type": "url", "url": part.image.url}}
    return {"type": "image", "source": {"type": "base64", "media_type": data[0], "data": data[1]}}


def _tool_use(call: ToolCall, field: str, ids: CallIds) -> dict[str, Any]:
    arguments = json_object(call.arguments_json or "{}", f"{field}.arguments_json")
    return {"type": "tool_use", "id": ids.of_call(call.id), "name": call.name, "input": arguments}


def _tools(chat: ChatPrompt) -> dict[str, Any]:
    if not chat.tools:
        return {}
    tools = [
        without_none(
            {
                "name": tool.name,
                "description": tool.description or None,
                "input_schema": {"type": "object"} | parameters(tool, i),
                "strict": tool.strict or None,
            }
        )
        for i, tool in enumerate(chat.tools)
    ]
    choice: dict[str, Any] = {"type": _CHOICES.get(chat.tool_choice.mode, "auto")}
    if choice["type"] == "tool":
        choice["name"] = chat.tool_choice.name
    if chat.HasField("parallel_tool_calls") and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = not chat.parallel_tool_calls
    return {"tools": tools, "tool_choice": choice}


def _output_config(sampling: Sampling) -> dict[str, Any] | None:
    form = sampling.response_format
    kind = form.WhichOneof("format")
    if kind == "json_schema":
        return {"format": {"type": "json_schema", "schema": response_schema(form)}}
    if kind in ("regex", "grammar") or (kind == "json_object" and form.json_object):
        Lacking(Unsupported.REFUSE, "Anthropic's API").never(f"{FORMAT}.{kind}")
    return None
