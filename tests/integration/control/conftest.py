"""A control plane in its own process, replicas to look at, and clients of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from headrace.control.v1 import control_pb2 as pb
from headrace.control.v1 import control_pb2_grpc
from mesh.edge import grpc_bootstrap
from tests.ports import free_ports

ROOT = Path(__file__).parents[3]
REPLICA = Path(__file__).with_name("replica.py")
# Ports in a row for the replicas of a service.
ROOM = 8


async def until(condition: Callable[[], Awaitable[bool] | bool], what: str = "it", within_s: float = 30.0) -> float:
    """Poll until the condition holds; returns the seconds it took.

    The limit is for what never comes: a machine that is busy with other things is no failure.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    while True:
        held = condition()
        if await held if isinstance(held, Awaitable) else held:
            return loop.time() - started
        assert loop.time() - started < within_s, f"{what} took longer than {within_s} s"
        await asyncio.sleep(0.005)


@dataclasses.dataclass
class Process:
    """A child process whose output goes to a file."""

    child: asyncio.subprocess.Process
    log: Path

    def signal(self, number: int) -> None:
        self.child.send_signal(number)

    async def kill(self) -> None:
        if self.child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(signal.SIGCONT)
                self.child.kill()
        await self.child.wait()


class Mesh:
    """A stack file, the processes that it asks for, and a control plane that reads it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.control = f"127.0.0.1:{free_ports()}"
        self.stack: dict[str, Any] = {"name": "test", "control": self.control, "services": {}}
        self.processes: dict[str, Process] = {}
        self._channels: list[grpc.aio.Channel] = []

    @property
    def stack_file(self) -> Path:
        return self.directory / "stack.yaml"

    def write(self) -> None:
        """Replace the stack file in one step, as scaling does."""
        draft = self.directory / "draft.yaml"
        draft.write_text(yaml.safe_dump(self.stack))
        draft.replace(self.stack_file)

    def add_service(self, name: str, kind: str = "inference", replicas: int = 1, **ports: int) -> None:
        """Reserves room for a few replicas' ports."""
        given = {"grpc": free_ports(ROOM), **ports}
        self.stack["services"][name] = {"kind": kind, "replicas": replicas, "ports": given}

    def address(self, replica: str) -> str:
        service, _, index = replica.rpartition("-")
        return f"127.0.0.1:{self.stack['services'][service]['ports']['grpc'] + int(index)}"

    async def start_replica(self, replica: str) -> Process:
        """Start one and wait until it listens."""
        service, _, index = replica.rpartition("-")
        ports = {name: base + int(index) for name, base in self.stack["services"][service]["ports"].items()}
        process = await self.spawn(replica, [sys.executable, str(REPLICA), replica, json.dumps(ports)], {})
        await until(lambda: "listening" in process.log.read_text(), f"start of {replica}")
        return process

    async def start_control(self, **settings: str) -> Process:
        """Start the control plane and wait until it is ready."""
        env = {f"HEADRACE_CONTROL_{key.upper()}": value for key, value in settings.items()}
        env |= {"HEADRACE_CONTROL_STACK": str(self.stack_file), "HEADRACE_CONTROL_DRAIN_DELAY_S": "0"}
        process = await self.spawn("control", [sys.executable, "-m", "mesh.control"], env)
        ended = asyncio.ensure_future(process.child.wait())
        await until(lambda: ended.done() or '"ready":true' in process.log.read_text(), "start of control")
        assert not ended.done() or not ended.result(), "start of control"
        ended.cancel()
        return process

    async def spawn(self, name: str, command: list[str], env: dict[str, str]) -> Process:
        log = self.directory / f"{name}.log"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
        paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'protos' / 'gen'}"}
        with log.open("wb") as out:
            child = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=inherited | paths | env, stdout=out, stderr=out
            )
        self.processes[name] = Process(child, log)
        return self.processes[name]

    def stub(self) -> control_pb2_grpc.ControlStub:
        channel = grpc.aio.insecure_channel(self.control)
        self._channels.append(channel)
        return control_pb2_grpc.ControlStub(channel)

    def channel(self, name: str, node: str = "tester") -> grpc.aio.Channel:
        """A proxyless channel to a service or a replica, with an xDS client of its own."""
        bootstrap = grpc_bootstrap(self.control, node, "test")
        options = (("grpc.TEST_ONLY_DO_NOT_USE_IN_PROD.xds_bootstrap_config", bootstrap), ("grpc.enable_retries", 0))
        channel = grpc.aio.insecure_channel(f"xds:///{name}", options=options)
        self._channels.append(channel)
        return channel

    async def health(self, stub: control_pb2_grpc.ControlStub) -> dict[str, pb.Health.ValueType]:
        """Every replica's health as the control plane sees it."""
        snapshot = (await stub.GetSnapshot(pb.GetSnapshotRequest(), timeout=20)).snapshot
        return {r.id: r.health for s in snapshot.services for r in s.replicas}

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        for process in self.processes.values():
            await process.kill()


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    mesh = Mesh(tmp_path)
    yield mesh
    await mesh.close()
