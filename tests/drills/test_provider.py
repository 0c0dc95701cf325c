"""The scriptable provider itself, as a process and over its admin interface."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator

import httpx
import pytest

from ops.drills.provider.app import Provider, ProviderOptions
from ops.drills.provider.faults import Fault, FaultError, Kind, Switchboard, from_fields, from_text
from tests.ports import free_ports

_ASK = {"model": "demo", "messages": [{"role": "user", "content": "hello there"}], "stream": True}


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """A provider that answers with five words."""
    running = Provider(ProviderOptions(port=free_ports(), answer_tokens=5))
    await running.start()
    yield running
    await running.close()


def _urls(provider: Provider) -> tuple[str, str]:
    return f"http://127.0.0.1:{provider.port}/v1/chat/completions", f"http://127.0.0.1:{provider.admin_port}"


async def test_the_same_question_has_the_same_answer(provider: Provider) -> None:
    """Streamed or not, whatever the model is called."""
    url, _ = _urls(provider)
    async with httpx.AsyncClient() as http:
        streamed = (await http.post(url, json=_ASK)).text
        whole = (await http.post(url, json=_ASK | {"stream": False, "model": "other"})).json()
    lines = [line[6:] for line in streamed.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    words = "".join(json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines[:-1])
    assert words == whole["choices"][0]["message"]["content"]
    assert len(words.split()) == 5


async def test_faults_are_set_by_admin_header_and_model(provider: Provider) -> None:
    """Three ways, one meaning; the journal tells what was received and how it ended."""
    url, admin = _urls(provider)
    async with httpx.AsyncClient() as http:
        put = await http.put(f"{admin}/faults", json=[{"kind": "status", "status": 503, "calls": 1}])
        assert put.status_code == 200
        assert (await http.post(url, json=_ASK)).status_code == 503
        assert (await http.post(url, json=_ASK)).status_code == 200
        limited = await http.post(url, json=_ASK, headers={"x-fault": "rate_limit,retry_after=9"})
        assert (limited.status_code, limited.headers["retry-after"]) == (429, "9")
        body = await http.post(url, json=_ASK | {"model": "demo!error_body"})
        assert body.status_code == 200
        assert "error" in body.json()
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post(url, json=_ASK | {"model": "demo!cut,after=2"})
        report = (await http.get(f"{admin}/calls")).json()
        assert report["outcomes"] == {"faulted": 4, "finished": 1}
        assert [call["fault"] for call in report["journal"]] == ["status", "", "rate_limit", "error_body", "cut"]
        assert report["journal"][-1]["chunks"] == 2
        assert (await http.delete(f"{admin}/calls")).json()["calls"] == 0


@pytest.mark.parametrize("body", [{"model": "m"}, {"messages": []}, _ASK | {"max_tokens": 0}, _ASK | {"model": "m!x"}])
async def test_bad_requests_are_told_so(provider: Provider, body: dict[str, object]) -> None:
    """As OpenAI would."""
    async with httpx.AsyncClient() as http:
        answer = await http.post(_urls(provider)[0], json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_nobody_listens_until_the_fault_is_over(provider: Provider) -> None:
    """Open connections break, too; the admin side stays, and what follows listens on the same port."""
    url, admin = _urls(provider)
    async with httpx.AsyncClient() as http:
        await http.post(url, json=_ASK)
        await http.put(f"{admin}/faults", json=[{"kind": "refuse", "lasts_s": 600}])
        for _ in range(2):
            with pytest.raises(httpx.TransportError):
                await http.post(url, json=_ASK)
        await http.delete(f"{admin}/faults")
        assert (await http.post(url, json=_ASK)).status_code == 200


async def test_a_refused_connection_heals_by_itself(provider: Provider) -> None:
    """Without another word; whether anybody was refused meanwhile hangs on how busy the machine is."""
    url, admin = _urls(provider)
    async with httpx.AsyncClient() as http, asyncio.timeout(20):
        await http.put(f"{admin}/faults", json=[{"kind": "refuse", "lasts_s": 0.2}])
        while True:
            try:
                healed = await http.post(url, json=_ASK)
                break
            except httpx.TransportError:
                await asyncio.sleep(0.02)
    assert healed.status_code == 200


@pytest.mark.parametrize(
    "fields", [{"kind": "explode"}, {"kind": "cut", "after": -1}, {"kind": "status", "status": 200}, {"kin": "cut"}, 7]
)
def test_faults_that_mean_nothing_are_refused(fields: object) -> None:
    """With the field that is wrong."""
    with pytest.raises(FaultError):
        from_fields(fields)


@pytest.mark.parametrize("text", ["", "cut,", "cut,after", "cut after=3", "cut,after=x"])
def test_faults_that_cannot_be_read_are_refused(text: str) -> None:
    """A header with a typo is not a healthy answer."""
    with pytest.raises(FaultError):
        from_text(text)


def test_a_share_of_calls_is_hit_evenly() -> None:
    """A quarter means every fourth, for the model that was meant."""
    board = Switchboard()
    board.set([Fault(Kind.CUT, percent=25, model="a")])
    hits = [board.choose("a") is not None for _ in range(8)]
    assert hits == [False, False, False, True] * 2
    assert board.choose("b") is None


def test_it_runs_as_a_process() -> None:
    """The first line says where; SIGTERM ends it with 0."""
    command = [sys.executable, "-m", "ops.drills.provider", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        try:
            answer = httpx.post(f"http://127.0.0.1:{ports['port']}/v1/chat/completions", json=_ASK, timeout=30)
        finally:
            process.terminate()
        assert process.wait(timeout=30) == 0
    assert answer.status_code == 200
