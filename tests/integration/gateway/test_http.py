"""The HTTP front, below what a well-behaved client sends."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import prometheus_client
import pytest
import yaml

from headrace.common.v1 import generation_pb2 as pb
from mesh.errors import Unavailable
from tests.fakes.router import Act
from tests.integration.gateway.harness import CHAT, HEADERS, KEY, PATIENCE_S, Running, gateway, stored, until

CHAT_PATH = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def error_of(response: httpx.Response) -> dict[str, object]:
    """The error's parts, once it has the right shape."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    return body["error"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status", "code"),
    [
        ("POST", CHAT_PATH, JSON, b"{", 400, "invalid_json"),
        ("POST", CHAT_PATH, JSON, b'{"model": "\xff"}', 400, "invalid_utf8"),
        ("POST", CHAT_PATH, JSON, b'{"prediction":' + b'{"a":' * 50_000, 400, "invalid_json"),
        ("POST", CHAT_PATH, JSON, b"", 400, "invalid_json"),
        ("POST", CHAT_PATH, {"content-type": "text/plain"}, b"{}", 415, "unsupported_media_type"),
        ("POST", "/v1/completions", FORM, b"{}", 415, "unsupported_media_type"),
        ("GET", CHAT_PATH, {}, b"", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", {}, b"", 405, "method_not_allowed"),
        ("GET", "/v1/nothing", {}, b"", 404, "unknown_path"),
        ("GET", "/v1/models/", {}, b"", 404, "unknown_path"),
        ("POST", CHAT_PATH, JSON | {"x-headrace-timeout": "soon"}, json.dumps(CHAT).encode(), 400, "invalid_value"),
    ],
)  # fmt: skip
async def test_what_is_not_a_request_is_refused(
    running: Running, method: str, path: str, headers: dict[str, str], content: bytes, status: int, code: str
) -> None:
    response = await running.http.request(method, path, headers=headers, content=content)
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert running.router.requests == []
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize("path", [CHAT_PATH, "/v1/completions", "/v1/models", "/v1/models/fake-model"])
async def test_every_path_that_costs_something_needs_a_key(running: Running, path: str) -> None:
    method = "GET" if "models" in path else "POST"
    async with httpx.AsyncClient(base_url=running.url) as stranger:
        response = await stranger.request(method, path, content=b"{}")
        assert (response.status_code, error_of(response)["code"]) == (401, "missing_api_key")
        assert response.headers["www-authenticate"] == 'Bearer realm="headrace"'
        known = await stranger.request(method, path, headers={"x-api-key": KEY}, content=b"{}")
        assert known.status_code != 401


async def test_a_body_of_ten_megabytes_is_refused_and_the_connection_lives_on(running: Running) -> None:
    big = json.dumps(CHAT | {"user": "x" * 10_000_000}).encode()

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(big), 100_000):
            yield big[start : start + 100_000]

    for content in (big, in_pieces()):
        response = await running.http.post(CHAT_PATH, headers=JSON, content=content)
        assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")
        assert (await running.http.post(CHAT_PATH, json=CHAT)).status_code == 200


async def test_the_size_limit_is_the_configured_one(tmp_path: Path) -> None:
    async with gateway(tmp_path, max_body_bytes=200) as running:
        assert (await running.http.post(CHAT_PATH, json=CHAT)).status_code == 200
        response = await running.http.post(CHAT_PATH, json=CHAT | {"user": "x" * 200})
        assert response.status_code == 413


async def test_a_body_that_never_comes_is_given_up(tmp_path: Path) -> None:
    async with gateway(tmp_path, body_timeout_s=0.05) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        head = f"POST {CHAT_PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\ncontent-length: 9\r\n\r\n"
        writer.write(head.encode() + b"{")
        answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
        assert b" 408 " in answer.splitlines()[0]
        writer.close()


async def test_ids_and_traces_come_in_and_go_out(running: Running) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    headers = {"x-request-id": "mine-1", "traceparent": trace}
    response = await running.http.post(CHAT_PATH, json=CHAT, headers=headers)
    assert response.headers["x-request-id"] == "mine-1"
    seen = running.router.metadata[0]
    assert seen["x-request-id"] == "mine-1"
    assert seen["traceparent"][3:35] == "a" * 32
    assert running.router.requests[0].context.request_id == "mine-1"

    for bad in ("é", "a b", "x" * 129):
        response = await running.http.post(CHAT_PATH, json=CHAT, headers={"x-request-id": bad.encode("latin-1")})
        assert response.status_code == 200
        assert response.headers["x-request-id"].startswith("req-")


async def test_how_the_answer_came_about_is_told(running: Running) -> None:
    running.router.default = Act(attempts=2)
    response = await running.http.post(CHAT_PATH, json=CHAT)
    assert {k: v for k, v in response.headers.items() if k.startswith("x-headrace-")} == {
        "x-headrace-deployment": "dep",
        "x-headrace-model": "m",
        "x-headrace-revision": "r1",
        "x-headrace-attempts": "2",
        "x-headrace-cost-usd": "0.001500",
    }
    assert "headrace" not in response.json()
    asked = await running.http.post(CHAT_PATH, json=CHAT, headers={"x-headrace-disclose": "true"})
    disclosed = asked.json()["headrace"]
    assert [attempt["outcome"] for attempt in disclosed["attempts"]] == ["fault", "ok"]
    assert disclosed["cost_usd"] == 0.0015
    assert disclosed["request_id"] == asked.headers["x-request-id"]

    failed = Act(after=0, error=Unavailable("gone"), attempts=2)
    running.router.default = failed
    response = await running.http.post(CHAT_PATH, json=CHAT, headers={"x-headrace-disclose": "true"})
    assert response.status_code == 503
    assert len(response.json()["headrace"]["attempts"]) == 2


async def test_room_is_bounded(tmp_path: Path) -> None:
    async with gateway(tmp_path, max_inflight=1) as running:
        running.router.acts.append(Act(after=0, then="stall"))
        first = asyncio.create_task(running.http.post(CHAT_PATH, json=CHAT))
        await running.router.started.wait()
        response = await running.http.post(CHAT_PATH, json=CHAT)
        assert (response.status_code, error_of(response)["code"]) == (429, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
        first.cancel()
        await asyncio.wait_for(running.router.cancelled.wait(), PATIENCE_S)
        await until(lambda: running.router.active == 0)

        async def fits() -> bool:
            return (await running.http.post(CHAT_PATH, json=CHAT)).status_code == 200

        # The router may hear of it before the gateway has given the place back.
        await until(fits)


async def test_a_request_past_its_deadline_ends_typed(running: Running) -> None:
    # The router waits for ever, and the time that the gateway gives by itself is longer than the client's patience.
    running.router.default = Act(after=0, then="stall")
    loop = asyncio.get_running_loop()
    started = loop.time()
    response = await running.http.post(CHAT_PATH, json=CHAT, headers={"x-headrace-timeout": "0.2"})
    assert loop.time() - started > 0.15
    assert response.status_code == 504
    assert (error_of(response)["type"], error_of(response)["code"]) == ("timeout", "deadline_exceeded")
    await until(lambda: running.router.active == 0)


async def test_health_names_what_is_pending(running: Running) -> None:
    assert (await running.http.get("/healthz")).json() == {"status": "ok"}
    assert (await running.http.get("/readyz")).json() == {"ready": True, "pending": []}
    await running.service.readiness.block("something")
    response = await running.http.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"ready": False, "pending": ["something"]})
    # Only what starts waits for the router; later its absence is told request by request.
    await running.service.readiness.clear("something")
    await running.router.stop()
    assert (await running.http.get("/readyz")).status_code == 200
    response = await running.http.post(CHAT_PATH, json=CHAT)
    assert (response.status_code, error_of(response)["type"]) == (503, "server_error")


async def test_head_has_no_body(running: Running) -> None:
    response = await running.http.head("/healthz")
    assert (response.status_code, response.content) == (200, b"")


async def test_the_page_brings_everything_along(running: Running) -> None:
    async with httpx.AsyncClient(base_url=running.url) as stranger:
        page = await stranger.get("/docs")
        document = (await stranger.get("/openapi.json")).json()
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "openapi.json" in page.text
    # Nothing is loaded from elsewhere.
    assert "src=" not in page.text
    assert "<link" not in page.text
    assert document["openapi"] == "3.1.0"


async def test_keys_come_and_go_while_it_runs(running: Running) -> None:
    new = {"authorization": "Bearer another-key"}
    assert (await running.http.get("/v1/models", headers=new)).status_code == 401
    entries = [stored("key-1", "tenant-1", KEY), stored("key-2", "tenant-2", "another-key")]
    running.write_keys(yaml.safe_dump(entries))

    async def answers(status: int) -> bool:
        return (await running.http.get("/v1/models", headers=new)).status_code == status

    await until(lambda: answers(200))
    running.write_keys("nonsense")
    since = "headrace_file_refused_since_seconds"
    labels = {"file": "keys", "reason": "values"}
    await until(lambda: (prometheus_client.REGISTRY.get_sample_value(since, labels) or 0) > 0)
    ready = await running.http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["warnings"] == {"keys": "the file is refused (values); the one before it holds"}
    assert await answers(200)
    running.write_keys(yaml.safe_dump(entries[:1]))
    await until(lambda: answers(401))
    assert (await running.http.get("/v1/models", headers=HEADERS)).status_code == 200


async def test_a_defect_tells_nothing_but_the_request_id(running: Running) -> None:
    # A choice that nobody asked for is beyond what a router may send.
    running.router.default = Act(deltas=[pb.ChoiceDelta(index=99, text="secret", finish_reason=1)])
    response = await running.http.post(CHAT_PATH, json=CHAT, headers={"x-request-id": "mine-2"})
    assert response.status_code == 500
    assert "mine-2" in str(error_of(response)["message"])
    assert "secret" not in response.text
