"""Requests that are the fault: asked in turn, counted by how they end, given up when it is healed."""

from __future__ import annotations

import asyncio

import aiohttp.test_utils
from aiohttp import web

from ops.drills.asking import AskedRequests
from ops.drills.spec import FaultPart, RequestPart


async def test_requests_are_asked_in_turn_and_judged_by_their_own_statuses() -> None:
    seen: list[dict[str, object]] = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        seen.append(body | {"key": request.headers["authorization"]})
        return web.json_response({}, status=400 if body.get("response_format") else 200)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with aiohttp.test_utils.TestServer(app) as server:
        refused = RequestPart("x", body={"response_format": {"type": "json_object"}}, statuses=(400,))
        either = RequestPart("ab", times=3, statuses=(200, 400))
        wrong = RequestPart("y", statuses=(500,))
        part = FaultPart("requests", requests=(refused, either, wrong), callers=2)
        asked = AskedRequests(part, "demo", str(server.make_url("/v1")), "k")
        await asked.inject()
        async with asyncio.timeout(20):
            while asked.otherwise < 2 or asked.ended[0, 400] < 2:
                await asyncio.sleep(0.01)
        await asked.heal()
        await asked.heal()
    assert {place for place, _ in asked.ended} == {0, 1, 2}
    assert asked.otherwise == asked.ended[2, 200]
    assert asked.begun >= sum(asked.ended.values())
    texts = {body["messages"][0]["content"] for body in seen}  # type: ignore[index]
    assert texts == {"x", "ababab", "y"}
    assert {(body["model"], body["key"]) for body in seen} == {("demo", "Bearer k")}


async def test_requests_may_carry_no_key() -> None:
    keys: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        keys.append(request.headers.get("authorization"))
        return web.json_response({}, status=401)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with aiohttp.test_utils.TestServer(app) as server:
        part = FaultPart("requests", requests=(RequestPart("x", key=False, statuses=(401,)),))
        asked = AskedRequests(part, "demo", str(server.make_url("/v1")), "k")
        await asked.inject()
        async with asyncio.timeout(20):
            while not asked.ended[0, 401]:
                await asyncio.sleep(0.01)
        await asked.heal()
    assert set(keys) == {None}
    assert asked.otherwise == 0


async def test_a_mesh_that_is_gone_is_no_right_end() -> None:
    part = FaultPart("requests", requests=(RequestPart("x"),))
    asked = AskedRequests(part, "demo", "http://127.0.0.1:9/v1", "k")
    await asked.inject()
    async with asyncio.timeout(20):
        while not asked.otherwise:
            await asyncio.sleep(0.01)
    await asked.heal()
