"""What a request asks of a deployment, read once from the message."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from headrace.common.v1 import chat_pb2, generation_pb2
from headrace.router.v1 import router_pb2
from router.core.catalog import Capability

# Text makes about one token in four characters; only the node knows.
_CHARS_PER_TOKEN: Final = 4
# A conversation is recognised by its beginning: the first messages, at most so much of each.
_PREFIX_MESSAGES: Final = 2
_PREFIX_CHARS: Final = 2_048


@dataclass(frozen=True, slots=True)
class RequestProfile:
    """The request, as choosing sees it."""

    request_id: str
    tenant: str
    user: str
    labels: Mapping[str, str]
    needs: frozenset[Capability]
    # An estimate, and the most that may be produced; 0: not said.
    prompt_tokens: int
    max_tokens: int
    # Equal for the turns of one conversation.
    prefix: int
    choices: int
    tools: bool
    structured: bool


def profile_of(request: router_pb2.GenerateRequest) -> RequestProfile:
    """Read a request. It is well-formed; see router.servicer."""
    generation, context = request.generation, request.context
    sampling, prompt = generation.sampling, generation.prompt
    needs: set[Capability] = set()
    kind = prompt.WhichOneof("prompt")
    chars = 0
    if kind == "chat":
        needs.add("chat")
        chars = _chat(prompt.chat, needs)
        tokens = chars // _CHARS_PER_TOKEN
    elif kind == "tokens":
        needs.add("completion")
        tokens = len(prompt.tokens.token_ids)
    else:
        needs.add("completion")
        tokens = len(prompt.text) // _CHARS_PER_TOKEN
    structured = sampling.HasField("response_format") and bool(sampling.response_format.WhichOneof("format"))
    if structured:
        needs.add("json_schema")
    if sampling.logprobs:
        needs.add("logprobs")
    return RequestProfile(
        request_id=context.request_id,
        tenant=context.tenant,
        user=context.user,
        labels=request.labels,
        needs=frozenset(needs),
        prompt_tokens=tokens,
        max_tokens=sampling.max_tokens,
        prefix=prefix_of(context.tenant, prompt),
        choices=max(1, sampling.n),
        tools=kind == "chat" and _tools(prompt.chat),
        structured=structured,
    )


def prefix_of(tenant: str, prompt: chat_pb2.Prompt) -> int:
    """A 64-bit hash of how the conversation begins; conversations of different tenants never share one."""
    digest = hashlib.blake2b(tenant.encode(), digest_size=8)
    kind = prompt.WhichOneof("prompt")
    if kind == "chat":
        for message in prompt.chat.messages[:_PREFIX_MESSAGES]:
            digest.update(b"\0")
            for part in message.content:
                digest.update(part.text[:_PREFIX_CHARS].encode())
    elif kind == "tokens":
        digest.update(repr(prompt.tokens.token_ids[: _PREFIX_CHARS // _CHARS_PER_TOKEN]).encode())
    else:
        digest.update(prompt.text[:_PREFIX_CHARS].encode())
    return int.from_bytes(digest.digest(), "big")


def question_of(generation: generation_pb2.Generation) -> str:
    """The text of the last user message: what a request is about."""
    prompt = generation.prompt
    if prompt.WhichOneof("prompt") != "chat":
        return prompt.text
    for message in reversed(prompt.chat.messages):
        if message.role == chat_pb2.ROLE_USER:
            return "".join(part.text for part in message.content)
    return ""


def _tools(chat: chat_pb2.ChatPrompt) -> bool:
    return bool(chat.tools) and chat.tool_choice.mode != chat_pb2.ToolChoice.MODE_NONE


def _chat(chat: chat_pb2.ChatPrompt, needs: set[Capability]) -> int:
    """The conversation's length in characters; adds what it needs."""
    chars = 0
    for message in chat.messages:
        for part in message.content:
            if part.HasField("image"):
                needs.add("vision")
            else:
                chars += len(part.text)
        chars += sum(len(call.arguments_json) for call in message.tool_calls)
    chars += sum(len(tool.description) + len(tool.parameters_json) for tool in chat.tools)
    if _tools(chat):
        needs.add("tools")
    return chars
