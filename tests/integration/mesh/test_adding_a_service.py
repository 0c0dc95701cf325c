"""The example of docs/adding-a-service.md: it has what every service has, and none of its lines repeats the mesh's."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import prometheus_client
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh import telemetry
from mesh.client import Connection, ServiceClient
from mesh.discovery import SnapshotWatcher
from mesh.errors import InvalidArgument
from mesh.lifecycle import State
from tests.fakes.control import FakeControl
from tests.ports import free_ports

ROOT = Path(__file__).parents[3]
ECHO = ROOT / "examples" / "echo"
PARTS = ["contract.py", "config.py", "core/echoing.py", "servicer.py", "app.py", "__main__.py", "client.py"]


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The example's modules."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from echo import app, client, config, contract  # noqa: PLC0415 - importable from here on

    return SimpleNamespace(app=app, client=client, config=config, contract=contract)


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "adding-a-service.md").read_text()
    shown = dict(re.findall(r"`examples/echo/([\w./]+)`:?\n\n```\w+\n(.*?)```", page, re.DOTALL))
    assert set(shown) == {*PARTS, "echo.proto", "stack.yaml"}
    for name, text in shown.items():
        assert text == (ECHO / name).read_text(), name


def test_it_is_about_a_hundred_lines() -> None:
    lines = [line for name in PARTS for line in (ECHO / name).read_text().splitlines() if line.strip()]
    assert len(lines) <= 100


async def test_it_has_what_every_service_has(echo: SimpleNamespace) -> None:
    """Health, errors, the trace, metrics on both sides, calls carried over a stream, and a drain."""
    service = await echo.app.build(echo.config.EchoConfig(drain_delay_s=0.0, max_chars=20))
    running = asyncio.create_task(service.run())
    await service.reached(State.READY)
    address, control = f"127.0.0.1:{service.server.port}", FakeControl()
    await control.start()
    control.publish({"echo": {"echo-0": address}})
    watcher, peers = SnapshotWatcher(control.address), ServiceClient("xds:///echo", dial="address")
    following = [asyncio.create_task(work) for work in (watcher.run(), peers.follow(watcher))]
    connection = Connection(address, carries=lambda: False)
    client = echo.client.EchoClient(peers)
    method = f"/{echo.contract.NAME}/Say"
    try:
        async with asyncio.timeout(60):
            while not peers.up:
                await asyncio.sleep(0.002)
        telemetry.enter_scope("mine-7", None)
        before = [_counted(side, method, "OK") for side in ("client", "server")]
        assert await client.say("hello there", 60.0) == "hello there"
        assert [word async for word in client.spell("one two", 60.0)] == ["one", "two"]
        assert [_counted(side, method, "OK") for side in ("client", "server")] == [before[0] + 1, before[1] + 1]
        with pytest.raises(InvalidArgument) as refused:
            await client.say("x" * 21, 60.0)
        assert refused.value.field == "text"
        health = await connection.stub(health_pb2_grpc.HealthStub).Check(health_pb2.HealthCheckRequest(), timeout=60.0)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
    finally:
        for task in following:
            task.cancel()
        await peers.close()
        await connection.close()
        service.stop()
        assert await asyncio.wait_for(running, 60) == 0
        await control.stop()


def _counted(side: str, method: str, code: str) -> float:
    labels = {"side": side, "method": method, "code": code}
    return prometheus_client.REGISTRY.get_sample_value("headrace_rpc_seconds_count", labels) or 0.0


def test_its_settings_are_checked_and_its_process_serves_metrics_and_logs(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT / "examples"), "HEADRACE_ECHO_DRAIN_DELAY_S": "0"}
    wrong = env | {"HEADRACE_ECHO_MAX_CHARS": "none", "HEADRACE_ECHO_LISTEN": "8080"}
    command = [sys.executable, "-m", "echo"]
    done = subprocess.run(command, cwd=ROOT, env=wrong, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 64
    assert "HEADRACE_ECHO_MAX_CHARS" in done.stderr
    assert "HEADRACE_ECHO_LISTEN" in done.stderr
    port, log = free_ports(), tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=env | {"HEADRACE_ECHO_METRICS_PORT": str(port)}, stderr=out)
        try:
            _wait_for(lambda: b"service.started" in log.read_bytes(), process)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                assert b"headrace_rpc_seconds" in answer.read()
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
    events = [json.loads(line)["event"] for line in log.read_text().splitlines() if line.startswith("{")]
    assert events.index("service.draining") < events.index("service.stopped")


def _wait_for(holds, process: subprocess.Popen[bytes]) -> None:
    while not holds():
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError("the process ended")


def test_its_drill_loses_nothing(tmp_path: Path) -> None:
    """One replica is killed and one drained under load; real processes, a real control plane."""
    stack, text = tmp_path / "stack.yaml", (ECHO / "stack.yaml").read_text()
    control, first = free_ports(), free_ports(2)
    text = text.replace("17600", str(control)).replace("17610", str(first)).replace(", metrics: 17620", "")
    stack.write_text(text)
    env = os.environ | {"PYTHONPATH": str(ROOT / "examples"), "HEADRACE_ECHO_DRAIN_DELAY_S": "0"}
    command = [sys.executable, "-m", "echo.drill", str(stack)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("calls, 0 lost\n")
