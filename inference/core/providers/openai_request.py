"""A generation as an OpenAI-compatible server wants it: /chat/completions, and /completions for raw text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from headrace.common.v1 import chat_pb2
from headrace.common.v1.chat_pb2 import ChatPrompt, ContentPart, Message, Tool, ToolCall
from headrace.common.v1.generation_pb2 import Generation, Sampling
from inference.core.chat_port import ChatRequest
from inference.core.continuing import continued_text
from inference.core.providers.call_ids import OPENAI, CallIds, IdForm
from inference.core.providers.dialect import HttpCall
from inference.core.providers.request_fields import (
    CHAT,
    FORMAT,
    Lacking,
    Unsupported,
    image_data,
    optional,
    parameters,
    past_arguments,
    response_schema,
    seed,
    texts,
    without_none,
)

# Servers besides OpenAI's do not know the role "developer", and OpenAI reads "system" as the same.
_ROLES: Final = {
    chat_pb2.ROLE_SYSTEM: "system",
    chat_pb2.ROLE_DEVELOPER: "system",
    chat_pb2.ROLE_USER: "user",
    chat_pb2.ROLE_ASSISTANT: "assistant",
    chat_pb2.ROLE_TOOL: "tool",
}
_CHOICES: Final = {
    chat_pb2.ToolChoice.MODE_NONE: "none",
    chat_pb2.ToolChoice.MODE_AUTO: "auto",
    chat_pb2.ToolChoice.MODE_REQUIRED: "required",
}
# Known to vLLM, SGLang and llama-server; OpenAI refuses the whole request for one of them.
_EXTENDED: Final = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
_SEED_BITS: Final = 63


@dataclass(frozen=True, slots=True)
class OpenAIOptions:
    """How one server differs from OpenAI's."""

    model: str
    unsupported: Unsupported = Unsupported.REFUSE
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    # Asks for the usage in the stream; some servers refuse the field.
    stream_usage: bool = True
    # The server knows top_k, min_p, repetition_penalty and ignore_eos.
    extended_sampling: bool = False
    # Azure's query parameter; empty: none.
    api_version: str = ""
    # The ids of past calls that the server accepts.
    call_ids: IdForm = OPENAI
    # How the server is told to go on from the beginning of an answer.
    continue_text: Literal["off", "continue_final_message", "prefix"] = "off"


def to_call(request: ChatRequest, options: OpenAIOptions) -> HttpCall:
    """The whole request. Raises MeshError naming the field at fault."""
    generation = request.generation
    body: dict[str, Any] = {"model": options.model, "stream": True}
    if options.stream_usage:
        body["stream_options"] = {"include_usage": True}
    body |= _sampling(generation.sampling, options)
    query = {"api-version": options.api_version} if options.api_version else {}
    if generation.prompt.WhichOneof("prompt") == "text":
        # The older endpoint knows the older name only.
        if (maximum := body.pop(options.max_tokens_field, None)) is not None:
            body["max_tokens"] = maximum
        return HttpCall("/completions", body | _completion(generation), query)
    return HttpCall("/chat/completions", body | _chat(generation, options), query)


def _sampling(sampling: Sampling, options: OpenAIOptions) -> dict[str, Any]:
    lacking = Lacking(options.unsupported, "this OpenAI-compatible provider")
    extended: dict[str, Any] = {}
    if options.extended_sampling:
        extended = {name: optional(sampling, name) for name in _EXTENDED} | {"ignore_eos": sampling.ignore_eos or None}
    else:
        lacking.check(sampling, _EXTENDED | {"ignore_eos": False})
    return without_none(
        {
            "temperature": optional(sampling, "temperature"),
            "top_p": optional(sampling, "top_p"),
            "presence_penalty": optional(sampling, "presence_penalty"),
            "frequency_penalty": optional(sampling, "frequency_penalty"),
            "logit_bias": {str(token): bias for token, bias in sorted(sampling.logit_bias.items())} or None,
            "seed": seed(sampling, _SEED_BITS),
            options.max_tokens_field: optional(sampling, "max_tokens"),
            "stop": list(sampling.stop) or None,
            "n": sampling.n if sampling.n > 1 else None,
            **extended,
        }
    )


def _completion(generation: Generation) -> dict[str, Any]:
    sampling = generation.sampling
    return without_none(
        {
            "prompt": generation.prompt.text + continued_text(generation),
            "logprobs": sampling.top_logprobs if sampling.logprobs else None,
        }
    )


def _chat(generation: Generation, options: OpenAIOptions) -> dict[str, Any]:
    chat, sampling = generation.prompt.chat, generation.sampling
    ids = CallIds(options.call_ids)
    messages = [_message(message, f"{CHAT}.messages[{i}]", ids) for i, message in enumerate(chat.messages)]
    begun, going_on = _continuation(continued_text(generation), options)
    return going_on | without_none(
        {
            "messages": messages + begun,
            "logprobs": True if sampling.logprobs else None,
            "top_logprobs": sampling.top_logprobs if sampling.logprobs and sampling.top_logprobs else None,
            "response_format": _response_format(sampling),
            **_tools(chat),
        }
    )


def _continuation(text: str, options: OpenAIOptions) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The message that an answer goes on from, and the fields that say so."""
    if not text:
        return [], {}
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if options.continue_text == "prefix":
        return [message | {"prefix": True}], {}
    return [message], {"continue_final_message": True, "add_generation_prompt": False}


def _message(message: Message, field: str, ids: CallIds) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": _ROLES[message.role], "content": _content(message, field)}
    if message.name:
        fields["name"] = message.name
    if message.tool_calls:
        fields["tool_calls"] = [
            _call(call, f"{field}.tool_calls[{k}]", ids) for k, call in enumerate(message.tool_calls)
        ]
    if message.role == chat_pb2.ROLE_TOOL:
        fields["tool_call_id"] = ids.of_answer(message.tool_call_id)
    return fields


def _call(call: ToolCall, field: str, ids: CallIds) -> dict[str, Any]:
    arguments = past_arguments(call.arguments_json or "{}", f"{field}.arguments_json")
    return {
        "id": ids.of_call(call.id),
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _content(message: Message, field: str) -> str | list[dict[str, Any]] | None:
    if all(part.WhichOneof("part") == "text" for part in message.content):
        if len(message.content) > 1:
            return [{"type": "text", "text": part.text} for part in message.content]
        # An assistant message that only calls tools has no content at all.
        return texts(message) or (None if message.tool_calls else "")
    return [_part(part, f"{field}.content[{i}]") for i, part in enumerate(message.content)]


def _part(part: ContentPart, field: str) -> dict[str, Any]:
    if part.WhichOneof("part") == "text":
        return {"type": "text", "text": part.text}
    data = image_data(part.image, f"{field}.image")
    url = {"url": f"data:{data[0]};base64,{data[1]}" if data else part.image.url}
    return {"type": "image_url", "image_url": url | ({"detail": part.image.detail} if part.image.detail else {})}


def _tools(chat: ChatPrompt) -> dict[str, Any]:
    if not chat.tools:
        return {}
    parallel = chat.parallel_tool_calls if chat.HasField("parallel_tool_calls") else None
    return {
        "tools": [{"type": "function", "function": _function(tool, i)} for i, tool in enumerate(chat.tools)],
        "tool_choice": _tool_choice(chat),
        "parallel_tool_calls": parallel,
    }


def _function(tool: Tool, place: int) -> dict[str, Any]:
    return without_none(
        {
            "name": tool.name,
            "description": tool.description or None,
            "parameters": parameters(tool, place),
            "strict": tool.strict or None,
        }
    )


def _tool_choice(chat: ChatPrompt) -> str | dict[str, Any] | None:
    if chat.tool_choice.mode == chat_pb2.ToolChoice.MODE_NAMED:
        return {"type": "function", "function": {"name": chat.tool_choice.name}}
    return _CHOICES.get(chat.tool_choice.mode)


def _response_format(sampling: Sampling) -> dict[str, Any] | None:
    form = sampling.response_format
    kind = form.WhichOneof("format")
    if kind == "json_schema":
        schema = {"name": form.name or "answer", "schema": response_schema(form), "strict": form.strict}
        return {"type": "json_schema", "json_schema": schema}
    if kind == "json_object" and form.json_object:
        return {"type": "json_object"}
    if kind in ("regex", "grammar"):
        Lacking(Unsupported.REFUSE, "this OpenAI-compatible provider").never(f"{FORMAT}.{kind}")
    return None
