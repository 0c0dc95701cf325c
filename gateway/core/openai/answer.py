"""Parts that both kinds of answers have."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from headrace.common.v1 import generation_pb2 as pb
from headrace.router.v1.router_pb2 import GenerateResponse

FINISH: Final = {
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
    pb.FINISH_REASON_TOOL_CALLS: "tool_calls",
    pb.FINISH_REASON_CONTENT_FILTER: "content_filter",
}
DONE: Final = b"data: [DONE]\n\n"
# What an answer calls its model, of what the node that answers calls it.
NameModel: TypeAlias = Callable[[str], str]
_encode = msgspec.json.Encoder().encode


class PromptTokensDetails(msgspec.Struct):
    """Of the prompt's tokens."""

    cached_tokens: int


class CompletionTokensDetails(msgspec.Struct):
    """Of the answer's tokens."""

    reasoning_tokens: int


class Usage(msgspec.Struct):
    """Tokens, as the serving model counts them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class Attempt(msgspec.Struct):
    """One try of one deployment."""

    deployment: str
    replica: str
    model: str
    revision: str
    cause: str
    outcome: str
    reason: str
    seconds: float
    cost_usd: float


class Disclosed(msgspec.Struct):
    """What was done to answer; given when asked for with `x-headrace-disclose: true`."""

    request_id: str
    deployment: str
    model: str
    revision: str
    escalated: bool
    spliced: bool
    fallback: bool
    cost_usd: float
    attempts: list[Attempt]


class Heading:
    """What all pieces of one answer share."""

    __slots__ = ("_name_model", "created", "fingerprint", "id", "model")

    def __init__(self, prefix: str, model: str, name_model: NameModel | None = None) -> None:
        self.id = prefix + secrets.token_hex(12)
        self.created = int(time.time())
        self.model = model
        self._name_model = name_model
        # The weights' revision, once it is known.
        self.fingerprint: str | None = None

    def learn(self, message: GenerateResponse) -> None:
        """Take what a message tells of the answer as a whole."""
        if not message.HasField("disclosure"):
            return
        disclosure = message.disclosure
        if disclosure.revision:
            self.fingerprint = f"fp_{disclosure.revision}"
        if disclosure.model and self._name_model is not None:
            self.model = self._name_model(disclosure.model)


def event(chunk: msgspec.Struct) -> bytes:
    """A chunk as a server-sent event."""
    return b"data: %b\n\n" % _encode(chunk)


def usage_of(usage: pb.Usage) -> Usage:
    """The usage as OpenAI writes it."""
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    return Usage(
        prompt,
        completion,
        prompt + completion,
        PromptTokensDetails(usage.cached_tokens),
        CompletionTokensDetails(usage.reasoning_tokens),
    )


def disclosed_of(disclosure: pb.Disclosure, request_id: str) -> Disclosed:
    """The disclosure as JSON has it."""
    return Disclosed(
        request_id,
        disclosure.deployment,
        disclosure.model,
        disclosure.revision,
        disclosure.escalated,
        disclosure.spliced,
        disclosure.fallback,
        disclosure.cost_micro_usd / 1e6,
        [_attempt_of(attempt) for attempt in disclosure.attempts],
    )


def _attempt_of(attempt: pb.Attempt) -> Attempt:
    return Attempt(
        attempt.deployment,
        attempt.replica,
        attempt.model,
        attempt.revision,
        attempt.cause,
        pb.Outcome.Name(attempt.outcome).removeprefix("OUTCOME_").lower(),
        attempt.reason,
        attempt.duration.ToNanoseconds() / 1e9,
        attempt.cost_micro_usd / 1e6,
    )
