"""What providers say of the node's own account, whatever status they choose for it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inference.core.providers import failures
from mesh.errors import MeshError, Outcome

_NOW = 1_700_000_000.0
# As they were published in documentation, bug reports and servers' source.
_ACCOUNT: dict[str, tuple[int, Any]] = {
    "openai, code": (400, {"error": {"code": "invalid_api_key", "type": "invalid_request_error", "message": "x"}}),
    "openai, message": (
        400,
        {"error": {"message": "Incorrect API key provided: sk-***. You can find your API key at"}},
    ),
    "openai, organization": (400, {"error": {"message": "Your organization must be verified to stream this model."}}),
    "openai, billing": (429, {"error": {"code": "billing_not_active", "message": "Your account is not active"}}),
    "openai, quota": (429, {"error": {"code": "insufficient_quota", "type": "insufficient_quota"}}),
    "openai, hard limit": (400, {"error": {"message": "Billing hard limit has been reached"}}),
    "anthropic, key": (
        400,
        {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}},
    ),
    "anthropic, credit": (
        400,
        {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."}},
    ),
    "anthropic, limits": (
        400,
        {
            "error": {
                "type": "invalid_request_error",
                "message": "You have reached your specified API usage limits. You will regain access on 2026-12-01.",
            }
        },
    ),
    "anthropic, disabled": (
        400,
        {"error": {"type": "invalid_request_error", "message": "This organization has been disabled."}},
    ),
    "gemini, key": (400, {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "API key not valid."}}),
    "gemini, reason": (
        400,
        [
            {
                "error": {
                    "status": "INVALID_ARGUMENT",
                    "message": "x",
                    "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
                }
            }
        ],
    ),
    "gemini, place": (400, {"error": {"status": "FAILED_PRECONDITION", "message": "User location is not supported"}}),
    "xai": (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: x***."}),
    "groq": (400, {"error": {"code": "organization_restricted", "message": "Organization has been restricted."}}),
    "mistral, older": (422, {"message": "Unauthorized", "request_id": "1"}),
    "a framework": (422, {"detail": "Invalid API key"}),
    "a framework, in a list": (422, {"detail": [{"loc": ["header", "x"], "msg": "Invalid API key"}]}),
    "a proxy": (400, {"error": {"message": "Authentication Error, No api key passed in.", "type": "auth_error"}}),
    "deepseek": (400, {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}}),
    "moonshot": (429, {"error": {"type": "exceeded_current_quota_error", "message": "Your account is suspended"}}),
    "together": (400, {"errors": [{"message": "Invalid API key provided."}]}),
}


def _of(status: int, body: Any) -> MeshError:
    return failures.of_response(status, {}, failures.decode_error(msgspec.json.encode(body)), _NOW)


@pytest.mark.parametrize(("status", "body"), _ACCOUNT.values(), ids=_ACCOUNT.keys())
def test_an_account_error_is_the_nodes_whatever_its_status(status: int, body: Any) -> None:
    """As a response of any of the statuses that are used for it, and as an event in a stream; never with its words."""
    for one in {status, 400, 422}:
        error = _of(one, body)
        assert (error.outcome, error.reason) == (Outcome.FAULT, "PROVIDER_REFUSED_ACCOUNT")
        assert "sk-" not in error.message
    assert failures.of_body(failures.read_error(body)).reason == "PROVIDER_REFUSED_ACCOUNT"


@pytest.mark.parametrize(
    "message",
    [
        "Invalid function name 'API key not valid billing_error'",
        "messages[0].content: 'Incorrect API key provided' is too long",
        "Invalid value: 'your account'. Supported values are: 'system', 'user'",
        "Invalid schema for function 'billing': authentication_error is not valid under any of the given schemas",
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_a_message_that_quotes_its_caller_stays_the_callers(message: str, status: int) -> None:
    """Nobody opens a breaker with the name of a tool."""
    assert _of(status, {"error": {"message": message}}).outcome is Outcome.CALLER_FAULT
    assert _of(status, {"detail": [{"loc": ["body", "tools"], "msg": message}]}).outcome is Outcome.CALLER_FAULT


def test_a_rate_limit_that_speaks_of_quota_is_back_pressure() -> None:
    """Gemini's limits of a minute read like those of a month."""
    body = {"error": {"status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota, please check"}}
    assert _of(429, body).outcome is Outcome.BACKPRESSURE


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
        "The input token count (1100000) exceeds the maximum number of tokens allowed (1048576).",
        "the request exceeds the available context size, try increasing it",
        "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
        "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
        "This model's maximum prompt length is 131072 but the request contains 200000 tokens.",
        "Input is too long for requested model.",
    ],
)
def test_a_context_overflow_is_told_in_the_words_that_clients_look_for(said: str) -> None:
    """Whatever the provider's are; those come after."""
    error = _of(400, {"error": {"message": said}})
    assert (error.reason, error.field) == ("CONTEXT_TOO_LONG", "generation.prompt")
    assert "maximum context length" in error.message
    assert said in error.message
    streamed = failures.of_body(failures.read_error({"error": {"message": said, "code": 400}}))
    assert streamed.reason == "CONTEXT_TOO_LONG"


@pytest.mark.parametrize(
    "error",
    [
        {"code": "content_policy_violation", "message": "Your request was rejected by our safety system."},
        {"code": "content_filter", "message": "The response was filtered"},
        {"type": "invalid_request_error", "message": "Output blocked by content filtering policy"},
        {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content."},
        {"innererror": {"code": "ResponsibleAIPolicyViolation"}, "code": "content_filter"},
    ],
)
def test_content_filters_are_known_by_their_words(error: dict[str, Any]) -> None:
    """Neither a bad request nor a broken provider; in the stream as in a response."""
    assert _of(400, {"error": error}).reason == "CONTENT_FILTERED"
    if "code" in error and error["code"].startswith("content_"):
        assert failures.of_body(failures.read_error({"error": error})).reason == "CONTENT_FILTERED"


def test_frameworks_name_the_field_in_their_own_way() -> None:
    """`loc` is a path into the request."""
    body = {"detail": [{"loc": ["body", "temperature"], "msg": "Input should be less than 2", "type": "less_than"}]}
    error = _of(422, body)
    assert (error.field, error.outcome) == ("generation.sampling.temperature", Outcome.CALLER_FAULT)
    assert "Input should be less than 2" in error.message


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{}", b"[" * 100_000, b"\xff", b'{"error": null}', b'"\\ud83d"']
)
def test_bodies_that_say_nothing_are_errors_all_the_same(body: bytes) -> None:
    """Whatever a proxy on the way writes, the error can be sent on."""
    error = failures.of_response(400, {}, failures.decode_error(body), _NOW)
    assert error.outcome is Outcome.CALLER_FAULT
    assert error.message.encode()


def test_what_is_the_callers_stays_so_in_mid_stream() -> None:
    """It says nothing of the node; what does is a stream that was cut."""
    failed = failures.model_failed("OTHER", "")
    assert failures.cut(failed) is failed
    assert failures.cut(failures.Malformed("x")).outcome is Outcome.MIDSTREAM_FAULT
