"""Errors as OpenAI writes them, and which of the mesh's errors becomes which of them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Final

import msgspec

from gateway.core.openai.answer import Disclosed, Usage
from mesh import errors
from mesh.errors import MeshError

_TYPES: Final[dict[type[MeshError], str]] = {
    errors.PermissionDenied: "permission_error",
    errors.ResourceExhausted: "rate_limit_error",
    errors.DeadlineExceeded: "timeout",
}
# OpenAI's own words where it has them; else the reason in lower case.
_CODES: Final = {
    "CONTEXT_TOO_LONG": "context_length_exceeded",
    "INVALID_ARGUMENT": "invalid_value",
    "OUT_OF_RANGE": "invalid_value",
}
_RETRYABLE: Final = (429, 503)
_RETRY_AFTER_S: Final = 1.0
_SAMPLING: Final = "generation.sampling."
_CHAT: Final = "generation.prompt.chat."
_PROMPT: Final = "generation.prompt"
# What OpenAI puts one level deeper: tools[0].parameters_json is the caller's tools[0].function.parameters.
_FUNCTION: Final = re.compile(r"(tools\[\d+\]|tool_calls\[\d+\]|tool_choice)\.(?!id$|mode$)")


class ErrorDetail(msgspec.Struct):
    """What went wrong. `type` and `code` are for programs, `message` is for people, `param` names the field."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct):
    """The body of every answer that is an error, and the last event of a stream that failed."""

    error: ErrorDetail
    headrace: Disclosed | msgspec.UnsetType = msgspec.UNSET
    # Of a stream that failed after it had begun, where its usage was asked for: what was delivered.
    usage: Usage | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that is ready to be sent."""

    status: int
    detail: ErrorDetail
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def body(self, disclosed: Disclosed | None = None, usage: Usage | None = None) -> bytes:
        """The error as JSON."""
        return msgspec.json.encode(ErrorBody(self.detail, disclosed or msgspec.UNSET, usage or msgspec.UNSET))


def refusal_of(error: MeshError, param: str | None) -> Refusal:
    """An error of the mesh as OpenAI would say it; `param` is its field under the caller's name for it."""
    code = _CODES.get(error.reason, error.reason.lower())
    detail = ErrorDetail(_message(error, param), _type(error), param, code)
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, errors.Unauthenticated):
        headers.append((b"www-authenticate", b'Bearer realm="headrace"'))
    if error.http_status in _RETRYABLE:
        seconds = _RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(seconds))))
        headers.append((b"retry-after-ms", b"%d" % max(1, math.ceil(seconds * 1e3))))
    return Refusal(error.http_status, detail, headers)


def param_of(field: str | None, prompt: str, max_tokens: str) -> str | None:
    """The caller's name for a field that is named as in the contract.

    `prompt` is what the caller's prompt is called, `max_tokens` the spelling they used.
    """
    if field is None or field == f"{_SAMPLING}max_tokens":
        return max_tokens if field else None
    if field.startswith(f"{_SAMPLING}response_format"):
        return "response_format" + (".json_schema.schema" if field.endswith(".json_schema") else "")
    if field.startswith(_SAMPLING):
        return field.removeprefix(_SAMPLING)
    if field.startswith(_CHAT):
        return _FUNCTION.sub(r"\1.function.", field.removeprefix(_CHAT)).removesuffix("_json")
    if field.startswith(_PROMPT):
        return prompt
    return field.removeprefix("generation.")


def callers_error(error: errors.InvalidArgument, prompt: str) -> errors.InvalidArgument:
    """The same error under the caller's name for its field."""
    param = param_of(error.field, prompt, "max_tokens")
    return errors.InvalidArgument(_message(error, param), field=param, reason=error.reason)


def _type(error: MeshError) -> str:
    for kind, name in _TYPES.items():
        if isinstance(error, kind):
            return name
    return "invalid_request_error" if error.http_status < 500 else "server_error"


def _message(error: MeshError, param: str | None) -> str:
    message = error.message
    # Nodes begin with the field as the contract spells it.
    if error.field is not None and param is not None:
        message = message.replace(f"{error.field}: ", f"Invalid '{param}': ", 1)
    if error.reason == "CONTEXT_TOO_LONG":
        # The words by which clients tell this error from others.
        return f"This model's maximum context length is exceeded. {message}"
    return message
