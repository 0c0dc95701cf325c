"""Bodies over HTTP: compressed ones, large ones, and what browsers ask before they send any."""

import asyncio
import gzip
import json
from pathlib import Path

import httpx
import pytest

from headrace.router.v1 import router_pb2
from tests.fakes.router import MODEL
from tests.integration.gateway.harness import CHAT, KEY, Running, gateway, until

CHAT_PATH = "/v1/chat/completions"
BODY = json.dumps(CHAT).encode()
JSON = {"content-type": "application/json"}
ORIGIN = "https://app.example.org"


async def test_a_compressed_body_is_read(running: Running) -> None:
    for content in (gzip.compress(BODY), gzip.compress(b"\xef\xbb\xbf" + BODY)):
        headers = JSON | {"content-encoding": "gzip"}
        response = await running.http.post(CHAT_PATH, content=content, headers=headers)
        assert response.status_code == 200
    assert (await running.http.post(CHAT_PATH, content=b"\xef\xbb\xbf" + BODY, headers=JSON)).status_code == 200
    refused = await running.http.post(CHAT_PATH, content=BODY, headers=JSON | {"content-encoding": "br"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert "gzip" in refused.headers["accept-encoding"]
    broken = await running.http.post(CHAT_PATH, content=BODY, headers=JSON | {"content-encoding": "gzip"})
    assert (broken.status_code, broken.json()["error"]["param"]) == (400, "content-encoding")
    bomb = await running.http.post(
        CHAT_PATH, content=gzip.compress(bytes(64 * 1024 * 1024)), headers=JSON | {"content-encoding": "gzip"}
    )
    assert bomb.status_code == 413


async def test_a_prompt_that_no_model_could_hold_never_leaves_the_gateway(running: Running) -> None:
    running.router.models = [router_pb2.Model(name=MODEL, max_context_length=8192)]
    huge = CHAT | {"messages": [{"role": "user", "content": "word " * 1_000_000}]}
    honest = {"role": "user", "content": "hello"}

    async def refused() -> bool:
        response = await running.http.post(CHAT_PATH, json=huge)
        if response.status_code == 200:
            # The list of models is looked at in the background.
            return False
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
        assert "maximum context length" in error["message"]
        return True

    await until(refused)
    running.router.requests.clear()
    answers = await asyncio.gather(
        *(running.http.post(CHAT_PATH, json=huge) for _ in range(4)),
        *(running.http.post(CHAT_PATH, json=CHAT | {"messages": [honest]}) for _ in range(8)),
    )
    assert [answer.status_code for answer in answers] == [400] * 4 + [200] * 8
    assert len(running.router.requests) == 8
    tools = [{"type": "function", "function": {"name": "f", "description": "word " * 1_000_000}}]
    error = (await running.http.post(CHAT_PATH, json=CHAT | {"tools": tools})).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "tools")


@pytest.mark.parametrize("origins", [(ORIGIN,), ("*",)])
async def test_pages_of_the_origins_named_may_call(tmp_path: Path, origins: tuple[str, ...]) -> None:
    allowed = origins[0]
    async with gateway(tmp_path, cors_origins=origins) as running, httpx.AsyncClient(base_url=running.url) as page:
        asks = {
            "origin": ORIGIN,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type, x-stainless-lang",
        }
        preflight = await page.options(CHAT_PATH, headers=asks)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == allowed
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert preflight.headers["access-control-allow-headers"] == asks["access-control-request-headers"]
        key = {"authorization": f"Bearer {KEY}"}
        for headers, status in (({}, 401), (key, 200)):
            response = await page.post(CHAT_PATH, json=CHAT, headers={"origin": ORIGIN} | headers)
            assert (response.status_code, response.headers["access-control-allow-origin"]) == (status, allowed)
            assert "x-request-id" in response.headers["access-control-expose-headers"]
        stranger = await page.post(CHAT_PATH, json=CHAT, headers={"origin": "https://evil.example.org"} | key)
        assert stranger.headers.get("access-control-allow-origin") == ("*" if allowed == "*" else None)


async def test_without_origins_no_page_may_call(running: Running) -> None:
    response = await running.http.options(
        CHAT_PATH, headers={"origin": ORIGIN, "access-control-request-method": "POST"}
    )
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]
