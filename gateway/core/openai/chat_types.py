"""Chat completions and their chunks, as OpenAI writes them. A field that is UNSET is left out; None is null."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from gateway.core.openai.answer import Disclosed, Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class TopLogprob(Struct):
    """A token that could have stood there."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(Struct):
    """A token's log probability; `bytes` are its exact bytes, for tokens that are part of a character."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct):
    """The log probabilities of an answer's tokens."""

    content: list[TokenLogprob] | None
    refusal: None = None


class CalledFunction(Struct):
    """The function that the model calls; `arguments` is JSON text as the model wrote it."""

    name: str
    arguments: str


class CalledTool(Struct):
    """A tool that the model calls."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


class AnswerMessage(Struct):
    """What the model says."""

    content: str | None
    refusal: str | None = None
    role: Literal["assistant"] = "assistant"
    tool_calls: list[CalledTool] | UnsetType = UNSET


class ChatChoice(Struct):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(Struct):
    """The answer to a chat request that asked for no stream."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str | None
    object: Literal["chat.completion"] = "chat.completion"
    headrace: Disclosed | UnsetType = UNSET


class CalledFunctionDelta(Struct):
    """A piece of a call: its name with the first one, then the arguments bit by bit."""

    arguments: str
    name: str | UnsetType = UNSET


class CalledToolDelta(Struct):
    """A piece of the call of that index; the first one has its id."""

    index: int
    function: CalledFunctionDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class Delta(Struct):
    """What a choice gained."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    refusal: str | UnsetType = UNSET
    tool_calls: list[CalledToolDelta] | UnsetType = UNSET


class ChunkChoice(Struct):
    """What the answer of that index gained."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(Struct):
    """An event of a chat stream."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str | None
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    usage: Usage | UnsetType | None = UNSET
    headrace: Disclosed | UnsetType = UNSET
