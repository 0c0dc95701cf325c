"""A provider's errors in the mesh's language.

What is wrong with the node's own account (its key, its bill, the model it was set up with) is never the caller's
fault: it counts against the deployment, so that the router goes elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from inference.core.providers import retry_after
from mesh.errors import InvalidArgument, MeshError, ResourceExhausted, StreamCut, Unavailable

_MAX_MESSAGE: Final = 300
_SAMPLING: Final = "generation.sampling"
_CHAT: Final = "generation.prompt.chat"
# The providers' names of request fields, with what stands before a dot or a bracket, as the contract spells them.
_FIELDS: Final = {
    "messages": f"{_CHAT}.messages",
    "contents": f"{_CHAT}.messages",
    "system": f"{_CHAT}.messages",
    "tools": f"{_CHAT}.tools",
    "tool_choice": f"{_CHAT}.tool_choice",
    "prompt": "generation.prompt",
    "temperature": f"{_SAMPLING}.temperature",
    "top_p": f"{_SAMPLING}.top_p",
    "top_k": f"{_SAMPLING}.top_k",
    "max_tokens": f"{_SAMPLING}.max_tokens",
    "max_completion_tokens": f"{_SAMPLING}.max_tokens",
    "stop": f"{_SAMPLING}.stop",
    "stop_sequences": f"{_SAMPLING}.stop",
    "n": f"{_SAMPLING}.n",
    "seed": f"{_SAMPLING}.seed",
    "logprobs": f"{_SAMPLING}.logprobs",
    "top_logprobs": f"{_SAMPLING}.top_logprobs",
    "logit_bias": f"{_SAMPLING}.logit_bias",
    "presence_penalty": f"{_SAMPLING}.presence_penalty",
    "frequency_penalty": f"{_SAMPLING}.frequency_penalty",
    "response_format": f"{_SAMPLING}.response_format",
    "output_config": f"{_SAMPLING}.response_format",
}
_LEADING_FIELD: Final = re.compile(r"([a-z_]+)[.:\[]")
# An error that comes without a status of its own: in the stream, or in the body of a 200.
_STATUS_OF_WORD: Final = {
    "invalid_request_error": 400,
    "INVALID_ARGUMENT": 400,
    "authentication_error": 401,
    "UNAUTHENTICATED": 401,
    "billing_error": 402,
    "permission_error": 403,
    "PERMISSION_DENIED": 403,
    "not_found_error": 404,
    "NOT_FOUND": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "RESOURCE_EXHAUSTED": 429,
    "overloaded_error": 529,
    "timeout_error": 504,
    "DEADLINE_EXCEEDED": 504,
    "UNAVAILABLE": 503,
}
_CONTEXT: Final = re.compile(
    "context_length_exceeded|prompt is too long|maximum context length|context window"
    "|exceeds the maximum number of tokens"
)
# Words for, and beginnings of messages about, the node's own account that come with a 400 or a 429. A message is only
# looked at from its beginning: further on it may quote the caller.
_OUR_WORDS: Final = frozenset(
    {"insufficient_quota", "billing_error", "billing_hard_limit_reached", "FAILED_PRECONDITION"}
)
_OUR_MESSAGES: Final = ("API key not valid", "API key expired", "Your credit balance is too low")


@dataclass(frozen=True, slots=True)
class ProviderError:
    """What a provider's error body says, whichever provider's it is. Empty where it does not say."""

    message: str = ""
    # Its words for the kind of error: OpenAI's code and type, Anthropic's type, Gemini's status.
    words: tuple[str, ...] = ()
    param: str = ""
    status: int = 0
    details: Any = None


def read_error(body: Any) -> ProviderError:
    """The error in a decoded body: `{"error": {...}}`, `{"error": "..."}`, a list of those, or the bare object."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return ProviderError(message=str(body) if isinstance(body, str) else "")
    error = body.get("error", body)
    if not isinstance(error, dict):
        return ProviderError(message=str(error))
    code = error.get("code")
    words = tuple(str(error[key]) for key in ("code", "type", "status") if isinstance(error.get(key), str))
    return ProviderError(
        message=str(error.get("message") or ""),
        words=words,
        param=str(error.get("param") or ""),
        status=code if isinstance(code, int) and 400 <= code < 600 else 0,
        details=error.get("details"),
    )


def decode_error(body: bytes) -> ProviderError:
    """The error in the bytes of a body; what is not JSON says nothing."""
    try:
        return read_error(msgspec.json.decode(body))
    except msgspec.DecodeError:
        return ProviderError()


def of_response(status: int, headers: Mapping[str, str], error: ProviderError, now: float) -> MeshError:
    """The error for a response that is not 200. `headers` have lower-case names; `now` is the wall clock."""
    wait = retry_after.from_headers(headers, now)
    return _of_status(status, error, wait if wait is not None else retry_after.from_details(error.details))


def of_body(error: ProviderError) -> MeshError:
    """The error that came in a stream, or in the body of a 200."""
    known = (_STATUS_OF_WORD[word] for word in error.words if word in _STATUS_OF_WORD)
    status = error.status or next(known, 500)
    return _of_status(status, error, retry_after.from_details(error.details))


def cut(error: MeshError) -> StreamCut:
    """The same failure once part of the answer is out."""
    return StreamCut(error.message, reason=error.reason, metadata=error.metadata)


class Malformed(Unavailable):
    """A provider that does not keep to its own interface."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the provider sent {what}", reason="PROVIDER_MALFORMED")


def ended_early(what: str) -> Unavailable:
    """A stream that ended before its end."""
    return Unavailable(f"the provider's stream ended without {what}", reason="PROVIDER_STREAM_ENDED_EARLY")


def _of_status(status: int, error: ProviderError, wait: float | None) -> MeshError:
    said = " ".join((*error.words, error.message))
    metadata = {"provider_status": str(status)}
    if _is_our_account(status, error):
        return _ours(status, metadata)
    if status in (400, 413, 422):
        return _callers(error, said, metadata)
    if status in (408, 409, 425, 429, 529) or (status == 503 and wait is not None):
        reason = "PROVIDER_OVERLOADED" if status in (503, 529) else "PROVIDER_RATE_LIMITED"
        message = f"the provider is too busy (HTTP {status})"
        return ResourceExhausted(message, reason=reason, retry_after_s=wait, metadata=metadata)
    reason = "PROVIDER_FAILED" if status >= 500 else "PROVIDER_MISCONFIGURED"
    return Unavailable(f"the provider failed (HTTP {status})", reason=reason, metadata=metadata)


def _is_our_account(status: int, error: ProviderError) -> bool:
    if status in (401, 402, 403, 404):
        return True
    # A limit for the account's lifetime is no back-pressure, and a bad key is a plain 400 at Gemini.
    return status in (400, 429) and (not _OUR_WORDS.isdisjoint(error.words) or error.message.startswith(_OUR_MESSAGES))


def _ours(status: int, metadata: dict[str, str]) -> Unavailable:
    if status == 404:
        message = "the provider knows no such model or path; check the node's base_url and upstream_model"
        return Unavailable(message, reason="PROVIDER_MODEL_NOT_FOUND", metadata=metadata)
    # The provider's own words often repeat a part of the key.
    message = f"the provider refuses the node's account (HTTP {status}); check its key, its rights and its bill"
    return Unavailable(message, reason="PROVIDER_REFUSED_ACCOUNT", metadata=metadata)


def _callers(error: ProviderError, said: str, metadata: dict[str, str]) -> InvalidArgument:
    message = f"the provider refuses the request: {_short(error.message) or 'it does not say why'}"
    if _CONTEXT.search(said):
        return InvalidArgument(message, reason="CONTEXT_TOO_LONG", field="generation.prompt", metadata=metadata)
    reason = "CONTENT_FILTERED" if "content_filter" in said else None
    return InvalidArgument(message, reason=reason, field=_field(error), metadata=metadata)


def _field(error: ProviderError) -> str | None:
    named = error.param or ""
    if not named and (leading := _LEADING_FIELD.match(error.message)):
        named = leading[1]
    return _FIELDS.get(re.split(r"[.\[]", named)[0])


def _short(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}..."
