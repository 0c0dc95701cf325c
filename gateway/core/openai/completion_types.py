"""Plain completions and their chunks, as OpenAI writes them. A field that is UNSET is left out; None is null."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field

from gateway.core.openai.answer import Disclosed, Usage


class CompletionLogprobs(Struct):
    """The log probabilities of an answer's tokens; `text_offset` is where each begins, in characters."""

    tokens: list[str] = field(default_factory=list)
    token_logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[dict[str, float]] = field(default_factory=list)
    text_offset: list[int] = field(default_factory=list)


class CompletionChoice(Struct):
    """One answer, or in a stream what it gained."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length", "content_filter"] | None


class Completion(Struct):
    """The answer to a completion request, or in a stream one event of it."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    system_fingerprint: str | None
    object: Literal["text_completion"] = "text_completion"
    usage: Usage | UnsetType | None = UNSET
    headrace: Disclosed | UnsetType = UNSET
