"""Callers that mean no good harm nobody else: requests of every hostile kind, and connections that hold bodies back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.hostile import CHAT, KINDS, TOO_LARGE, holding
from tests.e2e.mesh_under_test import Mesh, eventually
from tests.e2e.streams import Streams

# What Envoy may grow by while bodies are held back from it: a few that are too large and are read to their limit, and
# some kilobytes of each other.
_EDGE_MB = 128
_HOSTILE = 200
_AT_A_TIME = 8
# What memory may differ by once everything is over.
_SHARE = 1.05
_JSON = {"content-type": "application/json"}


def resident_mb(pid: int) -> float:
    """Resident megabytes of a process and of all that it started."""
    stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/status")]
    parents = {_of(stat, "Pid"): _of(stat, "PPid") for stat in stats}
    sizes = {_of(stat, "Pid"): _of(stat, "VmRSS") for stat in stats}
    family = {pid}
    while grown := {child for child, parent in parents.items() if parent in family} - family:
        family |= grown
    return sum(sizes[member] for member in family) / 1024


def _of(status: str, name: str) -> int:
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:")), 0)


def memory(mesh: Mesh) -> dict[str, float]:
    """Resident megabytes of every process."""
    return {name: resident_mb(int(row["pid"])) for name, row in mesh.rows().items() if row["pid"]}


def address(mesh: Mesh) -> tuple[str, int]:
    return "127.0.0.1", mesh.ports["edge"]


async def test_envoy_holds_no_bodies_for_callers_it_does_not_know(mesh: Mesh) -> None:
    envoy = mesh.pid("envoy")
    before = peak = resident_mb(envoy)
    lengths = [8_000_000] * 60 + [9_000_000] * 20
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{mesh.ports['edge']}", timeout=60) as honest:
        key = {"authorization": f"Bearer {mesh.key}"}
        async with holding(address(mesh), lengths, streams=128):
            for _ in range(40):
                body = {"model": "alone", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
                answer = await honest.post(CHAT, json=body, headers=key)
                assert answer.status_code == 200, answer.text
                peak = max(peak, resident_mb(envoy))
    print(f"envoy: {before:.0f} MB before, {peak:.0f} MB at most")
    assert peak - before < _EDGE_MB


def settled(mesh: Mesh) -> bool:
    """Whether nothing is given back any more."""
    before = memory(mesh)
    time.sleep(1.5)
    return all(now >= before[name] - 0.5 for name, now in memory(mesh).items())


async def hostile(http: httpx.AsyncClient, key: str, count: int) -> None:
    """So many requests, kind by kind, a few at a time; each is refused as its caller's fault."""
    turns = asyncio.Semaphore(_AT_A_TIME)
    kinds = list(KINDS.items())

    async def send(number: int) -> None:
        name, (headers, body) = kinds[number % len(kinds)]
        async with turns:
            sent = _JSON | {"authorization": f"Bearer {key}"} | headers
            try:
                answer = await http.post(CHAT, content=body, headers={k: v for k, v in sent.items() if v})
            except httpx.TransportError:
                assert name == TOO_LARGE
                return
            assert 400 <= answer.status_code < 500, f"{name}: {answer.status_code} {answer.text[:300]}"
            assert answer.json()["error"]["type"] in ("invalid_request_error", "rate_limit_error"), name

    await asyncio.gather(*(send(number) for number in range(count)))


@pytest.fixture
async def http(mesh: Mesh) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{mesh.ports['edge']}", timeout=120)


async def test_every_hostile_kind_is_its_callers_fault(mesh: Mesh, http: httpx.AsyncClient) -> None:
    async with http:
        await hostile(http, mesh.key, len(KINDS))


async def test_hostile_requests_harm_no_honest_stream_and_leave_no_memory(
    mesh: Mesh, http: httpx.AsyncClient, client: openai.AsyncOpenAI
) -> None:
    async with http:
        # What every process takes once it has seen all of it.
        await hostile(http, mesh.key, _HOSTILE)
        eventually(lambda: settled(mesh), 60, "memory no longer changes")
        before = memory(mesh)
        streams = Streams(client, "paced", 16)
        await streams.under_way()
        await hostile(http, mesh.key, _HOSTILE)
        for stream in await streams.end():
            assert stream.error is None
            assert stream.finish_reason is not None
        # Nobody's breaker is open.
        again = await Streams(client, "paced", 4).end()
        assert [stream.error for stream in again] == [None] * 4
    mesh.wait_healthy()

    def given_back() -> bool:
        return all(now <= _SHARE * before[name] + 2 for name, now in memory(mesh).items())

    try:
        eventually(given_back, 60, "memory is given back")
    finally:
        print({name: (round(before[name], 1), round(now, 1)) for name, now in memory(mesh).items()})
