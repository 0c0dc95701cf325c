"""What an operator wants to know of a running mesh, gathered from everyone who knows a part of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from headrace.control.v1 import control_pb2
from headrace.router.v1 import router_pb2
from mesh.stack import Stack
from ops.clients import router_states, snapshot
from ops.failure import Failure
from ops.local.probing import envoy_live, serving
from ops.local.processes import CONTROL, EDGE
from ops.local.supervisor import ProcessInfo, ProcessState, Supervisor
from ops.refused_files import RefusedFile, refused_files


@dataclass(frozen=True, slots=True)
class Load:
    """How busy an inference replica is, as its routers see it."""

    queued: int
    running: int
    capacity: int
    tokens_per_second: float
    # Share of its KV memory in use, 0 to 1.
    kv_used: float
    # The most open of the routers' breakers for it: "closed", "half_open" or "open".
    breaker: str


@dataclass(frozen=True, slots=True)
class Row:
    """One process of the mesh."""

    name: str
    service: str
    # The supervisor's word for it, in small letters.
    state: str
    # "healthy", "draining", "unhealthy" or "unknown".
    health: str
    # Why it is not healthy, or not running.
    reason: str
    pid: int
    uptime_s: float
    rss_mb: float
    load: Load | None

    @property
    def well(self) -> bool:
        """Whether nothing has to be done about it."""
        return self.state == "running" and self.health == "healthy"


@dataclass(frozen=True, slots=True)
class MeshStatus:
    """The mesh at one moment."""

    stack: str
    # The snapshot's version; empty where the control plane does not answer.
    snapshot: str
    rows: tuple[Row, ...]
    # Files that are not in force because something is wrong in them; those before them hold.
    refused: tuple[RefusedFile, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether every process is running and takes work, and every file is in force."""
        return all(row.well for row in self.rows) and not self.refused


async def mesh_status(stack: Stack, supervisor: Supervisor, logs: Path) -> MeshStatus:
    """Ask everyone at the same time; who does not answer is left out. Raises Failure where no mesh is running."""
    infos, current, states, control, edge = await asyncio.gather(
        asyncio.to_thread(supervisor.processes),
        _snapshot(stack),
        router_states(stack),
        serving(stack.control),
        _edge(stack),
    )
    healths = {one.id: one for service in current.services for one in service.replicas}
    services = {one.id: one.service for one in stack.each_replica()}
    loads = _loads(states.values())
    own = {CONTROL: control, EDGE: edge}
    rows = []
    for info in sorted(infos, key=lambda info: _order(stack, info.name)):
        health, reason = _health(healths.get(info.name), own.get(info.name))
        rows.append(_row(info, services.get(info.name, info.name), health, reason, loads.get(info.name)))
    refused = await refused_files(stack, logs, current, states)
    return MeshStatus(stack.name, current.version, tuple(rows), refused)


async def _snapshot(stack: Stack) -> control_pb2.Snapshot:
    try:
        return await snapshot(stack)
    except Failure:
        return control_pb2.Snapshot()


async def _edge(stack: Stack) -> bool:
    return stack.edge is not None and await envoy_live(stack.edge.admin)


def _order(stack: Stack, name: str) -> tuple[int, str]:
    """As a request goes: the edge, the services as the stack file has them, the control plane."""
    names = [EDGE, *(one.id for one in stack.each_replica()), CONTROL]
    return (names.index(name) if name in names else len(names), name)


def _health(replica: control_pb2.Replica | None, own: bool | None) -> tuple[str, str]:
    if own is not None:
        return ("healthy", "") if own else ("unhealthy", "does not answer")
    if replica is None:
        return "unknown", "not in the control plane's snapshot"
    return control_pb2.Health.Name(replica.health).removeprefix("HEALTH_").lower(), replica.reason


def _row(info: ProcessInfo, service: str, health: str, reason: str, load: Load | None) -> Row:
    running = info.state is ProcessState.RUNNING
    return Row(
        name=info.name,
        service=service,
        state=info.state.lower(),
        health=health,
        reason=info.problem or reason,
        pid=info.pid,
        uptime_s=max(0.0, time.time() - info.started) if running else 0.0,
        rss_mb=_rss_mb(info.pid) if running else 0.0,
        load=load,
    )


def _rss_mb(pid: int) -> float:
    """Resident memory of the process and its children: Envoy runs below its launcher."""
    try:
        process = psutil.Process(pid)
        return float(sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))) / 1e6
    except psutil.Error:
        return 0.0


def _loads(states: Iterable[router_pb2.GetStateResponse]) -> dict[str, Load]:
    seen: dict[str, list[router_pb2.ReplicaState]] = {}
    for state in states:
        for deployment in state.deployments:
            for replica in deployment.replicas:
                seen.setdefault(replica.id, []).append(replica)
    return {name: _load(views) for name, views in seen.items()}


def _load(views: Sequence[router_pb2.ReplicaState]) -> Load:
    """The node says the same to every router; only breakers are the routers' own."""
    breakers = {router_pb2.BreakerState.Name(view.breaker).removeprefix("BREAKER_STATE_").lower() for view in views}
    worst = next((word for word in ("open", "half_open", "closed") if word in breakers), "")
    one = views[0]
    return Load(one.queued, one.running, one.capacity, one.tokens_per_second, one.kv_used, worst)
