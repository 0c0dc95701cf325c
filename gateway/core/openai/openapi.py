"""The OpenAPI document, made from the very types that requests are decoded into, so that it cannot drift."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.core.openai.chat_request import ChatCompletionRequest
from gateway.core.openai.chat_types import ChatCompletion, ChatCompletionChunk
from gateway.core.openai.completion_request import CompletionRequest
from gateway.core.openai.completion_types import Completion
from gateway.core.openai.errors import ErrorBody
from gateway.core.openai.models import Model, ModelList

_VERSION: Final = "1.0.0"
_ABOUT: Final = (
    "The OpenAI-compatible interface of Headrace. Fields that are not listed are refused with a 400 that names them. "
    "Streams end in `data: [DONE]`, or in an event with an `error` and nothing after it."
)
_ERRORS: Final = {
    400: "The request is wrong; `param` names the field.",
    401: "No API key, or not a known one.",
    404: "There is no such model.",
    405: "Not this method.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "Too busy, or a limit is reached; `Retry-After` says when to come back.",
    500: "A defect; the log has it under the request id.",
    503: "Nothing can serve the model now.",
    504: "The request's time was over.",
}
_ASKING: Final = (400, 401, 404, 405, 408, 413, 415, 429, 500, 503, 504)
_READING: Final = (401, 405, 429, 500, 503, 504)
_TEXT: Final[dict[str, Any]] = {"type": "string"}
_HEALTH: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"ready": {"type": "boolean"}, "pending": {"type": "array", "items": _TEXT}},
    "required": ["ready", "pending"],
}


def document() -> dict[str, Any]:
    """The whole document, as OpenAPI 3.1."""
    types = (
        ChatCompletionRequest, ChatCompletion, ChatCompletionChunk, CompletionRequest, Completion, ErrorBody, Model,
        ModelList,
    )  # fmt: skip
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headrace", "version": _VERSION, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": [{"name": "Generating"}, {"name": "Models"}, {"name": "Health"}],
        "paths": {
            "/v1/chat/completions": {"post": _chat()},
            "/v1/completions": {"post": _completions()},
            "/v1/models": {"get": _reading("listModels", "List the models", "Models", _ref("ModelList"))},
            "/v1/models/{model}": {"get": _show_model()},
            "/healthz": {"get": _health("live", "Whether the process lives")},
            "/readyz": {"get": _ready()},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _chat() -> dict[str, Any]:
    return _generating(
        "createChatCompletion",
        "Answer a conversation",
        "ChatCompletionRequest",
        "ChatCompletion",
        "ChatCompletionChunk",
    )


def _completions() -> dict[str, Any]:
    return _generating("createCompletion", "Continue a text", "CompletionRequest", "Completion", "Completion")


def _generating(name: str, summary: str, request: str, answer: str, chunk: str) -> dict[str, Any]:
    events = {"schema": _TEXT, "description": f"`data:` lines, each with a {chunk}; then `data: [DONE]`."}
    content = {"application/json": {"schema": _ref(answer)}, "text/event-stream": events}
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["Generating"],
        "parameters": [
            _header("x-request-id", "Chosen by the caller, given back, and found in every log.", _TEXT),
            _header("x-headrace-timeout", "Seconds that the request may take.", {"type": "number", "minimum": 0.001}),
            _header("x-headrace-disclose", "`true`: say what was done to answer.", {"enum": ["true", "false"]}),
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(request)}}},
        "responses": {"200": {"description": "The answer.", "content": content}, **_errors(_ASKING)},
    }


def _reading(name: str, summary: str, tag: str, schema: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    return {
        "operationId": name,
        "summary": summary,
        "tags": [tag],
        "responses": {"200": {"description": "Found.", "content": content}, **_errors(_READING)},
    }


def _show_model() -> dict[str, Any]:
    operation = _reading("showModel", "Show a model", "Models", _ref("Model"))
    operation["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}]
    operation["responses"] |= _errors((404,))
    return operation


def _health(name: str, summary: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]}
    operation = _reading(name, summary, "Health", schema)
    operation["security"] = []
    operation["responses"] = {"200": operation["responses"]["200"], **_errors((405,))}
    return operation


def _ready() -> dict[str, Any]:
    operation = _health("ready", "Whether the process wants work, and what it waits for")
    content = {"application/json": {"schema": _HEALTH}}
    operation["responses"] = {
        "200": {"description": "Ready.", "content": content},
        "503": {"description": "Not ready.", "content": content},
        **_errors((405,)),
    }
    return operation


def _errors(statuses: tuple[int, ...]) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref("ErrorBody")}}
    return {str(status): {"description": _ERRORS[status], "content": content} for status in statuses}


def _header(name: str, about: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": about, "schema": schema}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
