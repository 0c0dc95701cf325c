"""What a request asks of a deployment, read once from the message."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from headrace.common.v1 import chat_pb2, generation_pb2
from headrace.router.v1 import router_pb2
from router.core.catalog import Capability
from router.core.token_estimate import tokens_in

# What a template writes around each message.
_TOKENS_PER_TURN: Final = 4
# A conversation is recognised by its beginning: the first messages, at most so much of each.
_PREFIX_MESSAGES: Final = 2
_PREFIX_CHARS: Final = 2_048
_PREFIX_TOKENS: Final = 512


class AnswerForm(enum.Enum):
    """What an answer has to look like."""

    TEXT = enum.auto()
    JSON_OBJECT = enum.auto()
    # Bound to a schema, a regular expression or a grammar.
    CONSTRAINED = enum.auto()
    # The caller insists on a call of a tool.
    TOOL_CALL = enum.auto()


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
    form: AnswerForm
    # The caller takes the answer whole: nothing of it is committed before all of it is there.
    whole: bool


def profile_of(request: router_pb2.GenerateRequest) -> RequestProfile:
    """Read a request. It is well-formed; see router.servicer."""
    generation, context = request.generation, request.context
    sampling, prompt = generation.sampling, generation.prompt
    needs: set[Capability] = set()
    kind = prompt.WhichOneof("prompt")
    needs.add("chat" if kind == "chat" else "completion")
    tools = False
    if kind == "chat":
        chat = prompt.chat
        texts = _read(chat, needs)
        prompt_tokens = tokens_in(texts) + len(chat.messages) * _TOKENS_PER_TURN
        tools = bool(chat.tools) and chat.tool_choice.mode != chat_pb2.ToolChoice.MODE_NONE
        if tools:
            needs.add("tools")
    elif kind == "tokens":
        prompt_tokens = len(prompt.tokens.token_ids)
    else:
        prompt_tokens = tokens_in((prompt.text,))
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
        prompt_tokens=prompt_tokens,
        max_tokens=sampling.max_tokens,
        prefix=prefix_of(context.tenant, prompt),
        choices=max(1, sampling.n),
        tools=tools,
        structured=structured,
        form=_form(prompt.chat, tools=tools, wanted=sampling.response_format if structured else None),
        whole=request.delivery == router_pb2.DELIVERY_WHOLE,
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
        digest.update(repr(prompt.tokens.token_ids[:_PREFIX_TOKENS]).encode())
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


def texts_of(chat: chat_pb2.ChatPrompt) -> list[str]:
    """All that a conversation's template writes out: its messages, the calls in them, and the tools' descriptions."""
    return _read(chat, set())


def tool_texts_of(chat: chat_pb2.ChatPrompt) -> Iterator[str]:
    """The part of them that describes the tools."""
    for tool in chat.tools:
        yield tool.name
        yield tool.description
        yield tool.parameters_json or (str(tool.parameters) if tool.HasField("parameters") else "")


def _form(chat: chat_pb2.ChatPrompt, *, tools: bool, wanted: chat_pb2.ResponseFormat | None) -> AnswerForm:
    modes = (chat_pb2.ToolChoice.MODE_REQUIRED, chat_pb2.ToolChoice.MODE_NAMED)
    if tools and chat.tool_choice.mode in modes:
        return AnswerForm.TOOL_CALL
    if wanted is None:
        return AnswerForm.TEXT
    if wanted.WhichOneof("format") != "json_object":
        return AnswerForm.CONSTRAINED
    return AnswerForm.JSON_OBJECT if wanted.json_object else AnswerForm.TEXT


def _read(chat: chat_pb2.ChatPrompt, needs: set[Capability]) -> list[str]:
    """The conversation's texts; adds what it needs. Calls in its history need a template that knows tools."""
    texts: list[str] = []
    for message in chat.messages:
        for part in message.content:
            texts.append(part.text)
            if part.HasField("image"):
                needs.add("vision")
        calls = message.tool_calls
        if calls or message.role == chat_pb2.ROLE_TOOL:
            needs.add("tools")
            for call in calls:
                texts += (call.name, call.arguments_json)
    if chat.tools:
        texts += tool_texts_of(chat)
    return texts
