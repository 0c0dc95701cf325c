"""What can be told of a generation without the model's tokenizer: ranges, and what the model is not capable of.

What is wrong raises RequestError, which names the field as the contract spells it.
"""

from __future__ import annotations

from headrace.common.v1 import chat_pb2
from headrace.common.v1.generation_pb2 import Generation, Sampling
from headrace.inference.v1.inference_pb2 import Capabilities
from mesh.contract_limits import BIAS, MAX_STOP_CHARACTERS, MAX_STOPS, SAMPLING

_SAMPLING = "generation.sampling"
_CHAT = "generation.prompt.chat"
_ROLES = frozenset(chat_pb2.Role.values()) - {chat_pb2.ROLE_UNSPECIFIED}


class RequestError(ValueError):
    """The caller's doing. `capability` is True where the request is right in itself but this model cannot do it."""

    def __init__(self, field: str, message: str, *, reason: str = "INVALID_ARGUMENT", capability: bool = False) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.reason = reason
        self.capability = capability


def check_generation(generation: Generation, can: Capabilities) -> None:
    """Check ranges, and what needs a capability. Raises RequestError."""
    _check_sampling(generation.sampling)
    kind = generation.prompt.WhichOneof("prompt")
    if kind is None:
        raise RequestError("generation.prompt", "missing")
    if kind == "chat":
        _check_chat(generation.prompt.chat, can)
    elif kind == "text" and not can.completion:
        raise RequestError("generation.prompt.text", "this model only chats", capability=True)
    elif kind == "tokens" and not can.resume:
        raise RequestError("generation.prompt.tokens", "this model does not show its tokens", capability=True)
    if generation.sampling.logprobs and not can.logprobs:
        raise RequestError("generation.sampling.logprobs", "this model gives none", capability=True)


def _check_chat(chat: chat_pb2.ChatPrompt, can: Capabilities) -> None:
    if not can.chat:
        raise RequestError(_CHAT, "this model has no chat template; send raw text", capability=True)
    if not chat.messages:
        raise RequestError(f"{_CHAT}.messages", "empty")
    _check_tools(chat, can)
    for i, message in enumerate(chat.messages):
        _check_message(message, f"{_CHAT}.messages[{i}]", can)


def _check_tools(chat: chat_pb2.ChatPrompt, can: Capabilities) -> None:
    choice, field = chat.tool_choice, f"{_CHAT}.tool_choice"
    if chat.tools and choice.mode != chat_pb2.ToolChoice.MODE_NONE and not can.tools:
        raise RequestError(f"{_CHAT}.tools", "this model calls no tools", capability=True)
    if choice.mode not in chat_pb2.ToolChoice.Mode.values():
        raise RequestError(f"{field}.mode", "unknown")
    if choice.mode == chat_pb2.ToolChoice.MODE_NAMED and all(tool.name != choice.name for tool in chat.tools):
        raise RequestError(f"{field}.name", f"no tool is called {choice.name[:80]!r}")
    if choice.mode == chat_pb2.ToolChoice.MODE_REQUIRED and not chat.tools:
        raise RequestError(field, "there are no tools to choose from")


def _check_message(message: chat_pb2.Message, field: str, can: Capabilities) -> None:
    if message.role not in _ROLES:
        raise RequestError(f"{field}.role", "missing or unknown")
    if (message.tool_calls or message.role == chat_pb2.ROLE_TOOL) and not can.tools:
        raise RequestError(f"{field}.tool_calls", "this model calls no tools", capability=True)
    for k, part in enumerate(message.content):
        inner = part.WhichOneof("part")
        if inner is None:
            raise RequestError(f"{field}.content[{k}]", "empty")
        if inner == "image" and not can.vision:
            raise RequestError(f"{field}.content[{k}].image", "this model reads text only", capability=True)


def _check_sampling(sampling: Sampling) -> None:
    """Check every field that stands for itself. Raises RequestError."""
    for field, value in sampling.ListFields():
        limit = SAMPLING.get(field.name)
        # Also what is not a number comes here: it is within nothing.
        if limit is not None and not limit.holds(value):
            raise RequestError(f"{_SAMPLING}.{field.name}", f"{value:g} is not {limit}")
    if sampling.top_logprobs and not sampling.logprobs:
        raise RequestError(f"{_SAMPLING}.top_logprobs", "needs logprobs")
    if len(sampling.stop) > MAX_STOPS:
        raise RequestError(f"{_SAMPLING}.stop", f"{len(sampling.stop)} strings; at most {MAX_STOPS}")
    if any(not 0 < len(stop) <= MAX_STOP_CHARACTERS for stop in sampling.stop):
        raise RequestError(f"{_SAMPLING}.stop", f"each of 1 to {MAX_STOP_CHARACTERS} characters")
    for token, bias in sampling.logit_bias.items():
        if not BIAS.holds(bias):
            raise RequestError(f"{_SAMPLING}.logit_bias", f"{bias:g} for token {token} is not {BIAS}")
