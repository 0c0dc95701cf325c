"""A provider's errors in the mesh's language.

What is wrong with the node's own account (its key, its bill, the model it was set up with) is never the caller's
fault: it counts against the deployment, so that the router goes elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from inference.core.providers import retry_after
from inference.core.providers.failure_words import (
    ACCOUNT_MESSAGES,
    ACCOUNT_WORDS,
    CONTEXT,
    FIELDS,
    FILTERED,
    STATUS_OF_WORD,
)
from inference.core.providers.halves import whole
from mesh.errors import (
    FailedPrecondition,
    InvalidArgument,
    MeshError,
    Outcome,
    ResourceExhausted,
    StreamCut,
    Unavailable,
)

_MAX_MESSAGE: Final = 300
_MAX_WORD: Final = 60
_LEADING_FIELD: Final = re.compile(r"([a-z_]+)[.:\[]")
# What provider's own words say is wrong with an account, where the status says less.
_ACCOUNT_STATUSES: Final = (400, 422, 429)


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
    """The error in a decoded body.

    `{"error": {...}}`, `{"error": "..."}`, `{"detail": ...}` and `{"errors": [...]}` of proxies and web frameworks, a
    list of those, or the bare object.
    """
    body = _first(body)
    if not isinstance(body, dict):
        return ProviderError(message=str(body) if isinstance(body, str) else "")
    error = next((_first(body[key]) for key in ("error", "detail", "errors") if body.get(key)), body)
    if not isinstance(error, dict):
        return ProviderError(message=str(error), words=_words(body), status=_status(body.get("code")))
    details = error.get("details")
    return ProviderError(
        message=str(error.get("message") or error.get("msg") or error.get("detail") or ""),
        words=_words(error) + _reasons(details),
        param=str(error.get("param") or _location(error.get("loc"))),
        status=_status(error.get("code")),
        details=details,
    )


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _words(error: dict[str, Any]) -> tuple[str, ...]:
    return tuple(error[key].lower() for key in ("code", "type", "status") if isinstance(error.get(key), str))


def _reasons(details: Any) -> tuple[str, ...]:
    """The reasons in the details of a Google API error."""
    found = details if isinstance(details, list) else ()
    return tuple(str(one["reason"]).lower() for one in found if isinstance(one, dict) and one.get("reason"))


def _status(code: Any) -> int:
    number = int(code) if isinstance(code, int | str) and str(code).isdecimal() and len(str(code)) == 3 else 0
    return number if 400 <= number < 600 else 0


def _location(loc: Any) -> str:
    """The field in the place that a web framework names: ["body", "temperature"]."""
    named = [part for part in loc if part != "body"] if isinstance(loc, list) else []
    return str(named[0]) if named else ""


def decode_error(body: bytes) -> ProviderError:
    """The error in the bytes of a body; what is not JSON says nothing."""
    try:
        return read_error(json.loads(body))
    except (ValueError, RecursionError):
        return ProviderError()


def of_response(status: int, headers: Mapping[str, str], error: ProviderError, now: float) -> MeshError:
    """The error for a response that is not 200. `headers` have lower-case names; `now` is the wall clock."""
    wait = retry_after.from_headers(headers, now)
    return _of_status(status, error, wait if wait is not None else retry_after.from_details(error.details))


def of_body(error: ProviderError) -> MeshError:
    """The error that came in a stream, or in the body of a 200."""
    known = (STATUS_OF_WORD[word] for word in error.words if word in STATUS_OF_WORD)
    status = error.status or next(known, 401 if _speaks_of_account(error) else 500)
    return _of_status(status, error, retry_after.from_details(error.details))


def cut(error: MeshError) -> MeshError:
    """The same failure once part of the answer is out. What is no fault of the node's stays what it is."""
    if error.outcome is Outcome.CALLER_FAULT:
        return error
    return StreamCut(error.message, reason=error.reason, metadata=error.metadata)


class Malformed(Unavailable):
    """A provider that does not keep to its own interface."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the provider sent {what}", reason="PROVIDER_MALFORMED")


def model_failed(word: str, said: str) -> FailedPrecondition:
    """The model garbled its own answer: nothing that the node or its provider did, and nothing to answer with.

    `word` is the provider's for it, `said` its message to people, if it has one.
    """
    word = word[:_MAX_WORD]
    message = (
        f"the model failed to answer ({word}){': ' if said else ''}{_short(said)}; change the request or ask again"
    )
    return FailedPrecondition(message, reason="MODEL_FAILED", metadata={"finish_reason": word})


def ended_early(what: str) -> Unavailable:
    """A stream that ended before its end."""
    return Unavailable(f"the provider's stream ended without {what}", reason="PROVIDER_STREAM_ENDED_EARLY")


def _of_status(status: int, error: ProviderError, wait: float | None) -> MeshError:
    said = " ".join((*error.words, error.message)).lower()
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
    return status in (401, 402, 403, 404) or (status in _ACCOUNT_STATUSES and _speaks_of_account(error))


def _speaks_of_account(error: ProviderError) -> bool:
    return not ACCOUNT_WORDS.isdisjoint(error.words) or error.message.lower().startswith(ACCOUNT_MESSAGES)


def _ours(status: int, metadata: dict[str, str]) -> Unavailable:
    if status == 404:
        message = "the provider knows no such model or path; check the node's base_url and upstream_model"
        return Unavailable(message, reason="PROVIDER_MODEL_NOT_FOUND", metadata=metadata)
    # The provider's own words often repeat a part of the key.
    message = f"the provider refuses the node's account (HTTP {status}); check its key, its rights and its bill"
    return Unavailable(message, reason="PROVIDER_REFUSED_ACCOUNT", metadata=metadata)


def _callers(error: ProviderError, said: str, metadata: dict[str, str]) -> InvalidArgument:
    message = f"the provider refuses the request: {_short(error.message) or 'it does not say why'}"
    if CONTEXT.search(said):
        # The words that clients look for, whatever the provider's are.
        message = f"the model's maximum context length is exceeded; {message}"
        return InvalidArgument(message, reason="CONTEXT_TOO_LONG", field="generation.prompt", metadata=metadata)
    reason = "CONTENT_FILTERED" if FILTERED.search(said) else None
    return InvalidArgument(message, reason=reason, field=_field(error), metadata=metadata)


def _field(error: ProviderError) -> str | None:
    named = error.param or ""
    if not named and (leading := _LEADING_FIELD.match(error.message)):
        named = leading[1]
    return FIELDS.get(re.split(r"[.\[]", named)[0])


def _short(message: str) -> str:
    message = whole(message)
    return message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}..."
