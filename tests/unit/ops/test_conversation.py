"""A conversation keeps whole answers only, and says how each that failed ended."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from ops.conversation import Conversation, models
from ops.failure import Failure


def said(*texts: str, done: bool = True) -> bytes:
    events = [{"choices": [{"delta": {"content": text}}]} for text in texts]
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def talking_to(answer: Callable[[dict[str, Any]], httpx.Response]) -> Conversation:
    transport = httpx.MockTransport(lambda request: answer(json.loads(request.content or b"null")))
    return Conversation(httpx.Client(base_url="http://mesh/v1", transport=transport), "m")


def test_each_turn_is_sent_with_those_before() -> None:
    asked: list[dict[str, Any]] = []

    def answer(body: dict[str, Any]) -> httpx.Response:
        asked.append(body)
        return httpx.Response(200, content=said("one ", "two"))

    talk = talking_to(answer)
    assert "".join(talk.ask("a")) == "one two"
    assert "".join(talk.ask("b")) == "one two"
    assert [turn["content"] for turn in asked[1]["messages"]] == ["a", "one two", "b"]
    talk.reset()
    list(talk.ask("c"))
    assert [turn["content"] for turn in asked[2]["messages"]] == ["c"]


def test_a_cancelled_answer_stays_out_of_the_history() -> None:
    talk = talking_to(lambda _: httpx.Response(200, content=said("one", "two")))
    pieces = talk.ask("a")
    assert next(pieces) == "one"
    pieces.close()
    assert talk.turns == []


def test_a_stream_without_its_end_is_an_error() -> None:
    talk = talking_to(lambda _: httpx.Response(200, content=said("half", done=False)))
    pieces = talk.ask("a")
    assert next(pieces) == "half"
    with pytest.raises(Failure, match="broke off"):
        next(pieces)
    assert talk.turns == []


def test_an_error_in_the_stream_is_shown_in_its_own_words() -> None:
    content = said("half", done=False) + b'data: {"error": {"message": "the node died"}}\n\n'
    talk = talking_to(lambda _: httpx.Response(200, content=content))
    with pytest.raises(Failure, match="the node died"):
        list(talk.ask("a"))


@pytest.mark.parametrize(
    ("status", "body", "what", "next_step"),
    [
        (401, b'{"error": {"message": "who are you"}}', "who are you", "keys new"),
        (429, b'{"error": {"message": "busy"}}', "busy", "wait a moment"),
        (502, b"<html>", "<html>", "headrace status"),
        (500, b"", "no reason given", "headrace status"),
        (499, b'"odd"', '"odd"', "headrace status"),
    ],
)
def test_a_refusal_says_why_and_what_to_do(status: int, body: bytes, what: str, next_step: str) -> None:
    talk = talking_to(lambda _: httpx.Response(status, content=body))
    with pytest.raises(Failure) as caught:
        list(talk.ask("a"))
    assert what in caught.value.what
    assert str(status) in caught.value.what
    assert next_step in caught.value.next_step


def test_a_mesh_that_is_not_there_is_said_to_be() -> None:
    def answer(_: dict[str, Any]) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    talk = talking_to(answer)
    with pytest.raises(Failure, match="connection refused"):
        list(talk.ask("a"))
    with pytest.raises(Failure, match="connection refused"):
        models(talk.http)
