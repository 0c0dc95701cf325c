"""A generation as Gemini's streamGenerateContent wants it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from headrace.common.v1 import chat_pb2
from headrace.common.v1.chat_pb2 import ChatPrompt, ContentPart, Message, ToolCall
from headrace.common.v1.generation_pb2 import Sampling
from inference.core.chat_port import ChatRequest
from inference.core.providers.call_ids import OPENAI, CallIds
from inference.core.providers.dialect import HttpCall
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
    seed,
    texts,
    without_none,
)
from inference.core.tool_calls.documents import read_json
from mesh.errors import InvalidArgument

_LACKING: Final = {"min_p": 0.0, "repetition_penalty": 1.0, "ignore_eos": False}
_SYSTEM: Final = (chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_DEVELOPER)
_MODES: Final = {
    chat_pb2.ToolChoice.MODE_NONE: "NONE",
    chat_pb2.ToolChoice.MODE_AUTO: "AUTO",
    chat_pb2.ToolChoice.MODE_REQUIRED: "ANY",
    chat_pb2.ToolChoice.MODE_NAMED: "ANY",
}
_SEED_BITS: Final = 31
# Newer models want the signature of the thoughts behind each call in the history. The contract has no place for one,
# and the call may be another model's; this is the value that the API documents for that.
_NO_SIGNATURE: Final = "skip_thought_signature_validator"


@dataclass(frozen=True, slots=True)
class GeminiOptions:
    """How the node asks."""

    model: str
    unsupported: Unsupported = Unsupported.REFUSE


def to_call(request: ChatRequest, options: GeminiOptions) -> HttpCall:
    """The whole request. Raises MeshError naming the field at fault."""
    generation = request.generation
    chat = generation.prompt.chat
    body = without_none(
        {
            "systemInstruction": _system(chat),
            "contents": _contents(chat),
            "generationConfig": _config(generation.sampling, options) or None,
            **_tools(chat, options),
        }
    )
    return HttpCall(f"/models/{options.model}:streamGenerateContent", body, {"alt": "sse"})


def _config(sampling: Sampling, options: GeminiOptions) -> dict[str, Any]:
    lacking = Lacking(options.unsupported, "Gemini's API")
    lacking.check(sampling, _LACKING)
    if sampling.logit_bias:
        lacking.lacks(f"{SAMPLING}.logit_bias")
    return without_none(
        {
            "temperature": optional(sampling, "temperature"),
            "topP": optional(sampling, "top_p"),
            "topK": optional(sampling, "top_k") or None,
            "presencePenalty": optional(sampling, "presence_penalty"),
            "frequencyPenalty": optional(sampling, "frequency_penalty"),
            "seed": seed(sampling, _SEED_BITS),
            "maxOutputTokens": optional(sampling, "max_tokens"),
            "stopSequences": list(sampling.stop) or None,
            "candidateCount": sampling.n if sampling.n > 1 else None,
            "responseLogprobs": True if sampling.logprobs else None,
            "logprobs": sampling.top_logprobs if sampling.logprobs and sampling.top_logprobs else None,
            **_response_format(sampling),
        }
    )


def _response_format(sampling: Sampling) -> dict[str, Any]:
    form = sampling.response_format
    kind = form.WhichOneof("format")
    if kind == "json_schema":
        return {"responseMimeType": "application/json", "responseJsonSchema": response_schema(form)}
    if kind == "json_object" and form.json_object:
        return {"responseMimeType": "application/json"}
    if kind in ("regex", "grammar"):
        Lacking(Unsupported.REFUSE, "Gemini's API").never(f"{FORMAT}.{kind}")
    return {}


def _system(chat: ChatPrompt) -> dict[str, Any] | None:
    found = [{"text": part.text} for m in chat.messages if m.role in _SYSTEM for part in m.content if is_text(part)]
    return {"parts": found} if found else None


def _contents(chat: ChatPrompt) -> list[dict[str, Any]]:
    """The turns. Neighbours of one role become one turn: the results of parallel calls have to stand together."""
    turns: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    ids = CallIds(OPENAI)
    for i, message in enumerate(chat.messages):
        if message.role in _SYSTEM:
            continue
        field = f"{CHAT}.messages[{i}]"
        names |= {ids.of_call(call.id): call.name for call in message.tool_calls}
        role = "model" if message.role == chat_pb2.ROLE_ASSISTANT else "user"
        answers = message.role == chat_pb2.ROLE_TOOL
        parts = (
            [_result(message, names.get(ids.of_answer(message.tool_call_id)), field)]
            if answers
            else _parts(message, field)
        )
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        elif parts:
            turns.append({"role": role, "parts": parts})
    if not turns:
        field = f"{CHAT}.messages"
        raise InvalidArgument(f"{field}: Gemini's API wants a message besides instructions", field=field)
    return turns


def _parts(message: Message, field: str) -> list[dict[str, Any]]:
    parts = [
        _part(part, f"{field}.content[{i}]")
        for i, part in enumerate(message.content)
        if part.WhichOneof("part") == "image" or is_text(part)
    ]
    return parts + [_call(call, f"{field}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls)]


def _part(part: ContentPart, field: str) -> dict[str, Any]:
    if part.WhichOneof("part") == "text":
        return {"text": part.text}
    data = image_data(part.image, f"{field}.image")
    if data is None:
        return {"fileData": without_none({"fileUri": part.image.url, "mimeType": part.image.media_type or None})}
    return {"inlineData": {"mimeType": data[0], "data": data[1]}}


def _call(call: ToolCall, field: str) -> dict[str, Any]:
    arguments = json_object(call.arguments_json or "{}", f"{field}.arguments_json")
    return {"functionCall": {"name": call.name, "args": arguments}, "thoughtSignature": _NO_SIGNATURE}


def _result(message: Message, name: str | None, field: str) -> dict[str, Any]:
    """A tool's answer. The API finds its call by the function's name, and wants an object."""
    if name is None:
        field = f"{field}.tool_call_id"
        raise InvalidArgument(f"{field}: answers no call of this conversation", field=field)
    text = texts(message)
    try:
        answer = read_json(text)
    except ValueError:
        # Text like any other, also where it is JSON that nobody could read again.
        answer = text
    response = answer if isinstance(answer, dict) else {"result": answer}
    return {"functionResponse": {"name": name, "response": response}}


def _tools(chat: ChatPrompt, options: GeminiOptions) -> dict[str, Any]:
    if not chat.tools:
        return {}
    if chat.HasField("parallel_tool_calls") and not chat.parallel_tool_calls:
        Lacking(options.unsupported, "Gemini's API").lacks(f"{CHAT}.parallel_tool_calls")
    declarations = [
        without_none(
            {
                "name": tool.name,
                "description": tool.description or None,
                "parametersJsonSchema": parameters(tool, i),
            }
        )
        for i, tool in enumerate(chat.tools)
    ]
    fields: dict[str, Any] = {"tools": [{"functionDeclarations": declarations}]}
    if mode := _MODES.get(chat.tool_choice.mode):
        named = chat.tool_choice.mode == chat_pb2.ToolChoice.MODE_NAMED
        config = {"mode": mode} | ({"allowedFunctionNames": [chat.tool_choice.name]} if named else {})
        fields["toolConfig"] = {"functionCallingConfig": config}
    return fields
