"""Chat completions and their chunks as OpenAI's API writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from ops.drills.provider import answers

_CREATED: Final = 1_700_000_000
DONE: Final = b"data: [DONE]\n\n"
MALFORMED: Final = b'data: {"choices": [{"delta": {"content":\n\n'


class BadRequest(ValueError):
    """What the caller did wrong; `param` names the field."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class Answer:
    """One answer to one request body. Raises BadRequest from the constructor."""

    def __init__(self, body: Mapping[str, Any], number: int, default_tokens: int) -> None:
        self._body = body
        self._id = f"chatcmpl-{number}"
        self.model = _text(body, "model")
        if not isinstance(body.get("messages"), list) or not body["messages"]:
            raise BadRequest("messages: must not be empty", "messages")
        record = body.get("max_completion_tokens") or body.get("max_tokens")
        if record is not None and (not isinstance(record, int) or record < 1):
            raise BadRequest("max_tokens: must be at least 1", "max_tokens")
        self._cut_short = record is not None and record < default_tokens
        self._count = min(record or default_tokens, default_tokens)
        self._choices = range(int(body.get("n") or 1))

    def chunks(self, *, counted: bool = True) -> Iterator[bytes]:
        """The events before [DONE]. Those that carry content come between the first and the finish reasons.

        The last one is the usage, if it was asked for and is `counted`.
        """
        for choice in self._choices:
            yield self._event({"role": "assistant", "content": ""}, choice)
        if (tool := answers.called_tool(self._body)) is not None:
            yield from self._tool_call(tool)
        else:
            rows = [answers.pieces(self._body, choice, self._count) for choice in self._choices]
            for column in zip(*rows, strict=True):
                for choice, piece in enumerate(column):
                    yield self._event({"content": piece}, choice)
            for choice in self._choices:
                yield self._event({}, choice, "length" if self._cut_short else "stop")
        if counted and (self._body.get("stream_options") or {}).get("include_usage"):
            yield sse(self._envelope("chat.completion.chunk", [], self.usage()))

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        choices: list[dict[str, Any]] = []
        for choice in self._choices:
            tool = answers.called_tool(self._body)
            message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
            if tool is None:
                message["content"] = "".join(answers.pieces(self._body, choice, self._count))
            else:
                function = {"name": tool, "arguments": "{}"}
                message["tool_calls"] = [{"id": f"call_{choice}", "type": "function", "function": function}]
            finish = "tool_calls" if tool else ("length" if self._cut_short else "stop")
            choices.append({"index": choice, "message": message, "finish_reason": finish, "logprobs": None})
        return self._envelope("chat.completion", choices, self.usage())

    def usage(self) -> dict[str, Any]:
        """Words asked and answered."""
        prompt, completion = answers.prompt_tokens(self._body), self._count * len(self._choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }

    def _tool_call(self, name: str) -> Iterator[bytes]:
        for choice in self._choices:
            function = {"name": name, "arguments": ""}
            call = {"index": 0, "id": f"call_{choice}", "type": "function", "function": function}
            yield self._event({"tool_calls": [call]}, choice)
            yield self._event({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}, choice)
            yield self._event({}, choice, "tool_calls")

    def _event(self, delta: dict[str, Any], choice: int, finish: str | None = None) -> bytes:
        entry = {"index": choice, "delta": delta, "finish_reason": finish, "logprobs": None}
        return sse(self._envelope("chat.completion.chunk", [entry], None))

    def _envelope(self, kind: str, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": _CREATED,
            "model": self.model,
            "system_fingerprint": "fp_drill",
            "choices": choices,
            "usage": usage,
        }


def sse(value: Any) -> bytes:
    """One event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def error(message: str, kind: str, param: str | None = None) -> dict[str, Any]:
    """An error's body."""
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}


def _text(body: Mapping[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{field}: missing", field)
    return value
