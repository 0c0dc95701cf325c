"""How far each process is on its way to ready: alive, and what it still waits for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import httpx
import msgspec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.channel import open_channel
from ops.local.processes import ProcessSpec
from ops.local.supervisor import ProcessInfo, ProcessState

_PROBE_TIMEOUT_S: Final = 1.0
# The newest line about readiness is near the end.
_TAIL_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Standing:
    """One process on its way to ready."""

    name: str
    state: ProcessState
    ready: bool
    # What it waits for, by the names that its readiness uses; or the supervisor's words.
    pending: str


async def probe_all(
    specs: Sequence[ProcessSpec], infos: Sequence[ProcessInfo], logs: Path, admin: str | None
) -> tuple[Standing, ...]:
    """Ask every process how far it is, all at the same time; `admin` is Envoy's. Takes at most a second."""
    by_name = {info.name: info for info in infos}
    return tuple(
        await asyncio.gather(
            *(_probe(spec, by_name.get(spec.name), logs / f"{spec.name}.log", admin) for spec in specs)
        )
    )


async def _probe(spec: ProcessSpec, info: ProcessInfo | None, log: Path, admin: str | None) -> Standing:
    if info is None:
        return Standing(spec.name, ProcessState.UNKNOWN, False, "not known to the supervisor")
    if info.state not in (ProcessState.STARTING, ProcessState.RUNNING):
        return Standing(spec.name, info.state, False, info.problem)
    if spec.health is not None:
        ready = await serving(spec.health)
    else:
        ready = admin is not None and await envoy_live(admin)
    return Standing(spec.name, info.state, ready, "" if ready else _pending(log))


async def serving(address: str) -> bool:
    """Whether the gRPC health service at the address says SERVING within a second."""
    async with open_channel(address) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_PROBE_TIMEOUT_S
            )
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def envoy_live(admin: str) -> bool:
    """Whether Envoy has got its first configuration and serves."""
    try:
        async with httpx.AsyncClient(timeout=_PROBE_TIMEOUT_S) as client:
            return (await client.get(f"http://{admin}/ready")).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def last_lines(log: Path, count: int) -> tuple[str, ...]:
    """The log's last lines; none where there is no log."""
    return tuple(log_end(log).splitlines()[-count:])


def _pending(log: Path) -> str:
    """What the process last said that it waits for."""
    for line in reversed(log_end(log).splitlines()):
        if '"health.changed"' not in line and '"service.started"' not in line:
            continue
        try:
            event = msgspec.json.decode(line, type=_HealthChanged)
        except msgspec.DecodeError:
            continue
        return ", ".join(event.pending) or "health check"
    return "start"


class _HealthChanged(msgspec.Struct):
    pending: tuple[str, ...] = ()


def log_end(log: Path) -> str:
    """The newest 64 KiB of a log; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
