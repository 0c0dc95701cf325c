"""How answers are taken: whole or streamed, silence in between, who answered, and what a cut answer has used."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from headrace.common.v1 import generation_pb2 as common
from headrace.router.v1 import router_pb2
from mesh.errors import StreamCut, Unavailable
from tests.fakes.router import Act
from tests.integration.gateway.harness import CHAT, Running, gateway, until

CHAT_PATH = "/v1/chat/completions"
TEXT: dict[str, Any] = {"model": "fake-model", "prompt": "hi"}


async def lines(running: Running, body: dict[str, Any]) -> list[str]:
    """Every line of a stream that says something, to its end."""
    async with running.http.stream("POST", CHAT_PATH, json=body | {"stream": True}) as response:
        assert response.status_code == 200
        return [line async for line in response.aiter_lines() if line]


def events(got: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in got if line.startswith("data: {")]


@pytest.mark.parametrize(
    ("path", "body", "calls"),
    [
        (CHAT_PATH, CHAT, 1),
        (CHAT_PATH, CHAT | {"n": 3}, 1),
        (CHAT_PATH, CHAT | {"stream": None}, 1),
        ("/v1/completions", TEXT, 1),
        ("/v1/completions", TEXT | {"prompt": ["a", "b", "c"]}, 3),
    ],
)
async def test_the_router_is_told_how_the_answer_is_taken(
    running: Running, path: str, body: dict[str, Any], calls: int
) -> None:
    assert (await running.http.post(path, json=body)).status_code == 200
    assert [r.delivery for r in running.router.requests] == [router_pb2.DELIVERY_WHOLE] * calls
    running.router.requests.clear()
    assert (await running.http.post(path, json=body | {"stream": True})).status_code == 200
    assert [r.delivery for r in running.router.requests] == [router_pb2.DELIVERY_STREAMED] * calls


async def test_that_a_node_waits_is_not_an_events_business(running: Running) -> None:
    running.router.default = Act(progress=5)
    got = events(await lines(running, CHAT))
    assert "".join(c["delta"].get("content", "") for event in got for c in event["choices"]) == "Hello there"
    assert all(event["choices"] for event in got)
    assert (await running.http.post(CHAT_PATH, json=CHAT)).json()["choices"][0]["message"]["content"] == "Hello there"


async def test_what_fails_while_a_node_waits_has_a_status(running: Running) -> None:
    running.router.default = Act(progress=2, after=0, error=Unavailable("gone"))
    response = await running.http.post(CHAT_PATH, json=CHAT | {"stream": True})
    assert response.status_code == 503


async def test_a_silent_stream_gets_comments(tmp_path: Path) -> None:
    async with gateway(tmp_path, keep_alive_s=0.05) as running:
        running.router.default = Act(stepped=True)
        async with running.http.stream("POST", CHAT_PATH, json=CHAT | {"stream": True}) as response:
            # Silent from the start: it begins all the same.
            assert response.status_code == 200
            reading = (line async for line in response.aiter_lines() if line)
            assert await anext(reading) == ": keep-alive"
            running.router.go.put_nowait(None)
            while (line := await anext(reading)).startswith(":"):
                pass
            assert json.loads(line.removeprefix("data: "))["choices"][0]["delta"]["content"] == "Hel"
            assert await anext(reading) == ": keep-alive"
            for _ in range(3):
                running.router.go.put_nowait(None)
            rest = [line async for line in reading if not line.startswith(":")]
            assert rest[-1] == "data: [DONE]"


async def test_the_official_client_reads_past_comments(tmp_path: Path) -> None:
    async with gateway(tmp_path, keep_alive_s=0.02) as running:
        running.router.default = Act(stepped=True)
        opening = running.openai.chat.completions.create(
            model="fake-model", messages=[{"role": "user", "content": "a"}], stream=True
        )
        stream = await opening
        for _ in range(4):
            running.router.go.put_nowait(None)
        text = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(text) == "Hello there"


async def test_what_fails_after_a_silent_beginning_ends_the_stream_typed(tmp_path: Path) -> None:
    async with gateway(tmp_path, keep_alive_s=0.02) as running:
        running.router.default = Act(pieces=("a",), after=1, stepped=True, error=Unavailable("gone"))
        reading = asyncio.create_task(lines(running, CHAT))
        await until(lambda: running.router.active == 1)
        running.router.go.put_nowait(None)
        got = events(await reading)
        assert got[-1]["error"]["code"] == "unavailable"


@pytest.mark.parametrize(
    ("naming", "answers", "named"),
    [
        ("changed", "m", "fake-model"),
        ("changed", "other", "other"),
        ("asked", "other", "fake-model"),
        ("answered", "m", "m"),
    ],
)
async def test_the_answer_says_which_model_it_is_of(tmp_path: Path, naming: str, answers: str, named: str) -> None:
    async with gateway(tmp_path, answer_model=naming) as running:
        running.router.default = Act(model=answers)

        async def says() -> bool:
            return (await running.http.post(CHAT_PATH, json=CHAT)).json()["model"] == named

        # The list of models is looked at in the background.
        await until(says)
        assert {event["model"] for event in events(await lines(running, CHAT))} == {named}
        text = await running.http.post("/v1/completions", json=TEXT)
        assert text.json()["model"] == named


@pytest.mark.parametrize(
    ("deltas", "tokens"),
    [
        ([common.ChoiceDelta(text="abc", token_ids=[1, 2, 3])], 3),
        ([common.ChoiceDelta(text="twelve chars")], 3),
        ([common.ChoiceDelta(refusal="12345")], 2),
    ],
)
async def test_what_a_cut_stream_delivered_is_its_usage(
    running: Running, deltas: list[common.ChoiceDelta], tokens: int
) -> None:
    running.router.default = Act(deltas=deltas, after=1, error=StreamCut("cut"))
    got = events(await lines(running, CHAT | {"stream_options": {"include_usage": True}}))
    assert got[-1]["error"]["code"] == "stream_cut"
    assert got[-1]["usage"]["completion_tokens"] == tokens
    got = events(await lines(running, CHAT))
    assert "usage" not in got[-1]
