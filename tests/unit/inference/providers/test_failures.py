"""Errors of providers, put into the mesh's language."""

from __future__ import annotations

from typing import Any

import pytest

from inference.core.providers import failures, retry_after
from mesh.errors import MeshError, Outcome

_NOW = 1_700_000_000.0


def _of(status: int, body: Any = None, headers: dict[str, str] | None = None) -> MeshError:
    return failures.of_response(status, headers or {}, failures.read_error(body), _NOW)


@pytest.mark.parametrize(
    ("status", "body", "outcome", "reason"),
    [
        (400, {"error": {"message": "no", "param": "temperature"}}, Outcome.CALLER_FAULT, "INVALID_ARGUMENT"),
        (400, {"error": {"code": "context_length_exceeded"}}, Outcome.CALLER_FAULT, "CONTEXT_TOO_LONG"),
        (400, {"error": {"code": "content_filter", "message": "x"}}, Outcome.CALLER_FAULT, "CONTENT_FILTERED"),
        (413, None, Outcome.CALLER_FAULT, "INVALID_ARGUMENT"),
        (422, {"error": "bad"}, Outcome.CALLER_FAULT, "INVALID_ARGUMENT"),
        (400, {"error": {"message": "API key not valid. Pass one."}}, Outcome.FAULT, "PROVIDER_REFUSED_ACCOUNT"),
        (400, [{"error": {"status": "FAILED_PRECONDITION"}}], Outcome.FAULT, "PROVIDER_REFUSED_ACCOUNT"),
        (401, None, Outcome.FAULT, "PROVIDER_REFUSED_ACCOUNT"),
        (402, None, Outcome.FAULT, "PROVIDER_REFUSED_ACCOUNT"),
        (403, None, Outcome.FAULT, "PROVIDER_REFUSED_ACCOUNT"),
        (404, None, Outcome.FAULT, "PROVIDER_MODEL_NOT_FOUND"),
        (301, None, Outcome.FAULT, "PROVIDER_MISCONFIGURED"),
        (408, None, Outcome.BACKPRESSURE, "PROVIDER_RATE_LIMITED"),
        (409, None, Outcome.BACKPRESSURE, "PROVIDER_RATE_LIMITED"),
        (425, None, Outcome.BACKPRESSURE, "PROVIDER_RATE_LIMITED"),
        (429, None, Outcome.BACKPRESSURE, "PROVIDER_RATE_LIMITED"),
        (429, {"error": {"code": "insufficient_quota"}}, Outcome.FAULT, "PROVIDER_REFUSED_ACCOUNT"),
        (500, None, Outcome.FAULT, "PROVIDER_FAILED"),
        (502, None, Outcome.FAULT, "PROVIDER_FAILED"),
        (503, None, Outcome.FAULT, "PROVIDER_FAILED"),
        (529, None, Outcome.BACKPRESSURE, "PROVIDER_OVERLOADED"),
    ],
)
def test_statuses_have_their_outcome(status: int, body: Any, outcome: Outcome, reason: str) -> None:
    """Only what the caller did is the caller's; the node's own account is not."""
    error = _of(status, body)
    assert (error.outcome, error.reason) == (outcome, reason)
    assert error.metadata["provider_status"] == str(status)


@pytest.mark.parametrize(
    ("error", "field"),
    [
        ({"param": "temperature"}, "generation.sampling.temperature"),
        ({"param": "messages[3].content"}, "generation.prompt.chat.messages"),
        ({"message": "messages.0.content: too short"}, "generation.prompt.chat.messages"),
        ({"message": "top_p: out of range"}, "generation.sampling.top_p"),
        ({"message": "something else"}, None),
    ],
)
def test_the_field_is_named_as_the_contract_does(error: dict[str, str], field: str | None) -> None:
    """Where the provider says which of its fields is wrong, the caller learns which of theirs."""
    assert _of(400, {"error": error}).field == field


def test_a_callers_words_do_not_look_like_a_bad_account() -> None:
    """A message that merely quotes the caller stays the caller's: a tool's name opens no breaker."""
    error = _of(400, {"error": {"message": "Invalid function name 'API key not valid billing_error'"}})
    assert error.outcome is Outcome.CALLER_FAULT


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({"error": {"type": "overloaded_error"}}, Outcome.BACKPRESSURE),
        ({"error": {"code": 429, "message": "slow down"}}, Outcome.BACKPRESSURE),
        ({"error": {"status": "RESOURCE_EXHAUSTED"}}, Outcome.BACKPRESSURE),
        ({"error": {"type": "invalid_request_error"}}, Outcome.CALLER_FAULT),
        ({"error": {"message": "boom"}}, Outcome.FAULT),
        ({"error": "boom"}, Outcome.FAULT),
        ("boom", Outcome.FAULT),
        (None, Outcome.FAULT),
    ],
)
def test_errors_without_a_status_are_told_by_their_words(body: Any, outcome: Outcome) -> None:
    """The body of a 200, or an event in the stream."""
    assert failures.of_body(failures.read_error(body)).outcome is outcome


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:40 GMT"}, 20.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:00 GMT"}, 0.0),
        ({"retry-after": "999999999"}, retry_after.MAX_S),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": "20ms"}, None),
        (
            {"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "2023-11-14T22:13:30Z"},
            10.0,
        ),
        ({}, None),
    ],
)
def test_waits_are_read_from_headers(headers: dict[str, str], seconds: float | None) -> None:
    """Every spelling that is in use, and nothing for what means nothing."""
    error = _of(429, None, headers)
    assert error.retry_after_s == (pytest.approx(seconds) if seconds is not None else None)


def test_waits_are_read_from_a_google_error() -> None:
    """Gemini puts the wait into the body."""
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]
    assert _of(429, {"error": {"status": "RESOURCE_EXHAUSTED", "details": details}}).retry_after_s == 34.5


def test_a_503_with_a_wait_is_back_pressure() -> None:
    """A server that says when to come back is busy, not broken."""
    assert _of(503, None, {"retry-after": "2"}).outcome is Outcome.BACKPRESSURE


def test_long_messages_are_cut() -> None:
    """A provider's message does not carry a whole prompt back."""
    assert len(str(_of(400, {"error": {"message": "x" * 5000}}))) < 400
