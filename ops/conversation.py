"""A conversation with the mesh over its OpenAI-compatible interface: history, and answers as they are made."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import msgspec

from ops.failure import ExitCode, Failure

# Between two pieces of an answer; a model that queues may take a while before the first.
_READ_TIMEOUT_S: Final = 120.0
_CONNECT_TIMEOUT_S: Final = 5.0


@dataclass(slots=True)
class Conversation:
    """The turns so far with one model. Answers that were cut off stay out of the history."""

    http: httpx.Client
    model: str
    # 0 is greedy. Small models wander at OpenAI's default of 1.
    temperature: float = 0.2
    turns: list[dict[str, str]] = field(default_factory=list)

    def ask(self, text: str) -> Generator[str, None, None]:
        """Send a turn and yield the answer in pieces. Raises Failure; closing the iterator cancels the answer."""
        messages = [*self.turns, {"role": "user", "content": text}]
        body = {"model": self.model, "messages": messages, "stream": True, "temperature": self.temperature}
        answer = ""
        with _failures(), self.http.stream("POST", "/chat/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                response.read()
                raise _refused(response)
            for piece in _pieces(response):
                answer += piece
                yield piece
        self.turns = [*messages, {"role": "assistant", "content": answer}]

    def reset(self) -> None:
        """Forget every turn."""
        self.turns.clear()


def connect(url: str, key: str) -> httpx.Client:
    """A client of the mesh at the URL, which ends in /v1. Close it."""
    timeout = httpx.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=timeout)


def models(http: httpx.Client) -> list[str]:
    """The names of the models that the key may use. Raises Failure."""
    with _failures():
        response = http.get("/models")
        if response.status_code != httpx.codes.OK:
            raise _refused(response)
        return [entry["id"] for entry in response.json()["data"]]


def _pieces(response: httpx.Response) -> Iterator[str]:
    """The text in a stream of server-sent events. Raises Failure where the stream ends without its end."""
    for line in response.iter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event: dict[str, Any] = msgspec.json.decode(data)
        if "error" in event:
            raise Failure(f"the answer broke off: {event['error']['message']}", "ask again", ExitCode.UNAVAILABLE)
        for choice in event.get("choices", ()):
            if text := choice["delta"].get("content"):
                yield text
    raise Failure("the answer broke off: the connection was closed", "ask again; see headrace status")


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise Failure(
            f"the mesh does not answer: {str(error) or type(error).__name__}", "see whether it is up: headrace status"
        ) from error


def _refused(response: httpx.Response) -> Failure:
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = response.text.strip()[:200] or "no reason given"
    steps: dict[int, str] = {
        httpx.codes.UNAUTHORIZED: "give a key with --key or HEADRACE_API_KEY; make one: headrace keys new",
        httpx.codes.NOT_FOUND: "name one of the models: headrace chat --help",
        httpx.codes.TOO_MANY_REQUESTS: "wait a moment and ask again",
    }
    next_step = steps.get(response.status_code, "see headrace status and headrace logs gateway")
    return Failure(f"HTTP {response.status_code}: {message}", next_step)
