"""Bad input, through Envoy: a 4xx in OpenAI's shape that names the field, and the mesh is none the worse for it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.e2e.mesh_under_test import Mesh

MODEL = "alone"
_ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


def body(**changes: Any) -> bytes:
    return json.dumps({**_ASK, **changes}).encode()


# What is sent, and the status and field that the answer has to name.
_BAD: dict[str, tuple[bytes, int, str | None]] = {
    "broken JSON": (b'{"model": ', 400, None),
    "not an object": (b"[]", 400, None),
    "invalid UTF-8": (b'{"model": "alone", "messages": [{"role": "user", "content": "\xff\xfe"}]}', 400, None),
    "no model": (json.dumps({"messages": _ASK["messages"]}).encode(), 400, "model"),
    "unknown model": (body(model="nobody"), 404, "model"),
    "no messages": (json.dumps({"model": MODEL}).encode(), 400, "messages"),
    "empty messages": (body(messages=[]), 400, "messages"),
    "unknown role": (body(messages=[{"role": "wizard", "content": "hi"}]), 400, "messages[0].role"),
    "max_tokens 0": (body(max_tokens=0), 400, "max_tokens"),
    "max_tokens negative": (body(max_tokens=-5), 400, "max_tokens"),
    "max_tokens over the context": (body(max_tokens=1_000_000), 400, "max_tokens"),
    "temperature too high": (body(temperature=2.5), 400, "temperature"),
    "temperature negative": (body(temperature=-0.1), 400, "temperature"),
    "temperature NaN": (b'{"model":"alone","messages":[{"role":"user","content":"hi"}],"temperature":NaN}', 400, None),
    "top_p out of range": (body(top_p=1.5), 400, "top_p"),
    "n 0": (body(n=0), 400, "n"),
    "stop of the wrong type": (body(stop=5), 400, "stop"),
    "stream of the wrong type": (body(stream="yes"), 400, "stream"),
}


@pytest.fixture
async def http(mesh: Mesh) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {mesh.key}", "content-type": "application/json"}
    return httpx.AsyncClient(base_url=mesh.url, headers=headers, timeout=30)


@pytest.mark.parametrize(("content", "status", "field"), _BAD.values(), ids=_BAD.keys())
async def test_bad_input_is_refused_by_name(
    http: httpx.AsyncClient, content: bytes, status: int, field: str | None
) -> None:
    async with http:
        answer = await http.post("/chat/completions", content=content)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert error["message"]
        assert error["type"] == "invalid_request_error"
        assert "code" in error
        if field is not None:
            assert error["param"] == field
        assert (await http.post("/chat/completions", content=body())).status_code == 200


async def test_a_body_of_ten_megabytes_is_refused_at_the_edge(http: httpx.AsyncClient) -> None:
    async with http:
        answer = await http.post(
            "/chat/completions", content=body(messages=[{"role": "user", "content": "x" * 10_000_000}])
        )
        assert answer.status_code == 413
        assert answer.json()["error"]["message"]
        assert (await http.post("/chat/completions", content=body())).status_code == 200


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer hr-wrong", "Basic abc", "Bearer \xe9"])
async def test_a_missing_or_wrong_key_is_refused(mesh: Mesh, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    async with httpx.AsyncClient(base_url=mesh.url, timeout=30) as http:
        answer = await http.post("/chat/completions", content=body(), headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] in ("missing_api_key", "invalid_api_key")
