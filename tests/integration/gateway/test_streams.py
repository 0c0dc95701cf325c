"""Streams: how they end, who ends them, and what a slow or absent reader costs."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import pytest

from mesh.errors import StreamCut, Unavailable
from tests.fakes.router import Act
from tests.integration.gateway.harness import CHAT, KEY, PATIENCE_S, Running, gateway, until

CHAT_PATH = "/v1/chat/completions"
STREAM = CHAT | {"stream": True}


async def events(running: Running, headers: dict[str, str] | None = None) -> list[str]:
    """The data of every event, to the end of the answer."""
    async with running.http.stream("POST", CHAT_PATH, json=STREAM, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return [line.removeprefix("data: ") async for line in response.aiter_lines() if line]


@contextlib.asynccontextmanager
async def raw(
    running: Running, body: dict[str, object]
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection with a request under way, and a receive buffer that is soon full."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", running.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    payload = json.dumps(body).encode()
    writer.write(
        f"POST {CHAT_PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n".encode()
        + payload
    )
    try:
        yield reader, writer
    finally:
        writer.close()


async def test_a_whole_stream_ends_in_done(running: Running) -> None:
    got = await events(running)
    assert got[-1] == "[DONE]"
    finishes = [choice["finish_reason"] for event in got[:-1] for choice in json.loads(event)["choices"]]
    assert [finish for finish in finishes if finish] == ["stop"]
    assert finishes[-1] == "stop"


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (Act(after=2, error=StreamCut("cut", reason="STREAM_CUT")), "stream_cut"),
        (Act(after=2, error=Unavailable("gone", reason="PEER_GONE")), "peer_gone"),
        (Act(after=2, then="end"), "stream_cut"),
        (Act(after=4, then="end"), "stream_cut"),
        (Act(then="nofinish"), "stream_cut"),
    ],
    ids=["cut", "error", "ok-without-summary", "finish-without-summary", "summary-without-finish"],
)
async def test_a_broken_stream_ends_in_one_typed_error(running: Running, act: Act, code: str) -> None:
    running.router.default = act
    got = await events(running)
    assert "[DONE]" not in got
    assert [json.loads(event).get("error", {}).get("code") for event in got if "error" in json.loads(event)] == [code]
    assert json.loads(got[-1])["error"]["type"] == "server_error"
    stream = await running.openai.chat.completions.create(
        model="fake-model", messages=[{"role": "user", "content": "a"}], stream=True
    )
    with pytest.raises(openai.APIError) as caught:
        async for _ in stream:
            pass
    assert caught.value.code == code


async def test_a_router_that_ends_without_a_word_is_an_error_with_a_status(running: Running) -> None:
    running.router.default = Act(after=0, then="end")
    for body in (CHAT, STREAM):
        response = await running.http.post(CHAT_PATH, json=body)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "stream_cut")


async def test_a_router_that_dies_ends_the_stream_typed(running: Running) -> None:
    running.router.default = Act(after=1, then="stall")
    async with running.http.stream("POST", CHAT_PATH, json=STREAM) as response:
        lines = response.aiter_lines()
        assert "Hel" in await anext(lines)
        await running.router.stop()
        rest = [line async for line in lines if line]
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["type"] == "server_error"


async def test_the_disclosure_of_a_broken_stream_comes_with_its_error(running: Running) -> None:
    running.router.default = Act(after=2, error=StreamCut("cut"), attempts=3)
    got = await events(running, {"x-headrace-disclose": "true"})
    assert len(json.loads(got[-1])["headrace"]["attempts"]) == 3


async def test_tokens_arrive_one_by_one(running: Running) -> None:
    running.router.default = Act(stepped=True)
    opening = running.http.stream("POST", CHAT_PATH, json=STREAM)
    entering = asyncio.create_task(opening.__aenter__())
    await running.router.started.wait()
    # Until the router has committed itself, a failure still gets a status of its own.
    assert not entering.done()
    running.router.go.put_nowait(None)
    response = await entering
    lines = (line async for line in response.aiter_lines() if line)
    for piece in ("Hel", "lo", " there"):
        assert json.loads((await anext(lines)).removeprefix("data: "))["choices"][0]["delta"]["content"] == piece
        running.router.go.put_nowait(None)
    assert [line async for line in lines][-1] == "data: [DONE]"
    await opening.__aexit__(None, None, None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("after", [0, 2])
async def test_a_client_that_leaves_cancels_the_router(running: Running, stream: bool, after: int) -> None:
    # The router waits for ever, and the request's own time is not over before this test's patience is.
    running.router.default = Act(after=after, then="stall")
    async with raw(running, CHAT | {"stream": stream}) as (reader, writer):
        await running.router.started.wait()
        await until(lambda: running.router.sent == after)
        if stream and after:
            await reader.readuntil(b"Hel")
        writer.transport.abort()
        await asyncio.wait_for(running.router.cancelled.wait(), PATIENCE_S)
    await until(lambda: running.router.active == 0)


async def test_a_reader_that_stops_holds_the_router_back_and_leaves_no_memory_behind(running: Running) -> None:
    running.router.default = Act(pieces=("x" * 1000,), then="flood")
    async with raw(running, STREAM) as (reader, writer):
        await reader.readuntil(b"xxxx")
        # Whatever buffers there are fill up, the largest of them gRPC's window; then nothing moves any more.
        before = -1
        while before != running.router.sent:
            before = running.router.sent
            assert before < 16_000
            await asyncio.sleep(0.3)
        writer.transport.abort()
        await asyncio.wait_for(running.router.cancelled.wait(), PATIENCE_S)


async def test_a_reader_that_stops_for_good_is_disconnected(tmp_path: Path) -> None:
    async with gateway(tmp_path, stall_s=0.5) as running:
        running.router.default = Act(pieces=("x" * 1000,), then="flood")
        async with raw(running, STREAM) as (reader, _):
            await reader.readuntil(b"xxxx")
            await asyncio.wait_for(running.router.cancelled.wait(), PATIENCE_S)


async def test_a_reader_that_stops_is_let_go_at_its_deadline(tmp_path: Path) -> None:
    async with gateway(tmp_path, deadline_s=2.0) as running:
        running.router.default = Act(pieces=("x" * 1000,), then="flood")
        async with raw(running, STREAM) as (reader, _):
            await reader.readuntil(b"xxxx")
            await until(lambda: running.router.active == 0)


async def test_a_drain_finishes_the_streams_it_holds(running: Running) -> None:
    streams = 16
    running.router.default = Act(stepped=True)
    reading = [asyncio.create_task(events(running)) for _ in range(streams)]
    await until(lambda: running.router.active == streams)
    for _ in range(streams):
        running.router.go.put_nowait(None)
    await until(lambda: running.router.sent == streams)
    running.service.stop()
    await until(lambda: running.service.readiness.pending == ("draining",))
    for _ in range(3 * streams):
        running.router.go.put_nowait(None)
    for got in await asyncio.wait_for(asyncio.gather(*reading), PATIENCE_S):
        assert got[-1] == "[DONE]"
    assert await asyncio.wait_for(running.task, PATIENCE_S) == 0
    with pytest.raises(httpx.ConnectError):
        await running.http.get("/healthz")


async def test_a_drain_that_takes_too_long_ends_streams_typed(tmp_path: Path) -> None:
    async with gateway(tmp_path, drain_deadline_s=0.2) as running:
        running.router.default = Act(after=1, then="stall")
        async with running.http.stream("POST", CHAT_PATH, json=STREAM) as response:
            lines = (line async for line in response.aiter_lines() if line)
            assert "Hel" in await anext(lines)
            running.service.stop()
            rest = [line async for line in lines]
        assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "draining"
        assert await asyncio.wait_for(running.task, PATIENCE_S) == 0


async def test_while_it_drains_answers_close_their_connections(running: Running) -> None:
    assert "connection" not in (await running.http.get("/healthz")).headers
    looked = asyncio.Event()

    async def wait(_deadline_s: float) -> None:
        await looked.wait()

    # Before the HTTP front's own: it has been told to drain and listens still.
    running.service.drains.insert(0, wait)
    running.service.stop()
    await until(lambda: running.service.readiness.pending == ("draining",))
    response = await running.http.post(CHAT_PATH, json=CHAT)
    assert (response.status_code, response.headers["connection"]) == (200, "close")
    ready = await running.http.get("/readyz")
    assert (ready.status_code, ready.json()["pending"]) == (503, ["draining"])
    looked.set()
