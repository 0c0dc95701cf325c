"""Bringing a stack up and waiting until a request would be answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from mesh.stack import Stack
from ops.failure import ExitCode, Failure
from ops.local.probing import Standing, last_lines, probe_all
from ops.local.processes import ProcessSpec
from ops.local.supervisor import ProcessState, Supervisor
from ops.state import StateDir

_POLL_S: Final = 0.1
_EDGE_TIMEOUT_S: Final = 2.0
# How much of a failing process's log is shown.
_LOG_LINES: Final = 20


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the start stands, for display."""

    standings: tuple[Standing, ...]
    # What is still missing beyond the processes themselves; empty when nothing is.
    mesh_pending: str
    seconds: float

    @property
    def ready(self) -> bool:
        """Whether a request would be answered."""
        return not self.mesh_pending and all(standing.ready for standing in self.standings)


async def wait_ready(
    stack: Stack,
    state: StateDir,
    specs: Sequence[ProcessSpec],
    *,
    key: str,
    timeout_s: float,
    show: Callable[[Progress], None],
) -> Progress:
    """Return once every process is ready and the edge answers with models; `show` sees each step.

    Raises Failure where a process ends instead, with the last lines of its log, or when time is over.
    """
    supervisor, started = Supervisor(state), time.monotonic()
    admin = stack.edge.admin if stack.edge else None
    while True:
        infos = await asyncio.to_thread(supervisor.processes)
        standings = await probe_all(specs, infos, state.logs, admin)
        pending = "" if all(standing.ready for standing in standings) else "processes"
        if not pending and stack.edge:
            pending = await _edge_pending(stack.edge.listen, key)
        progress = Progress(standings, pending, time.monotonic() - started)
        show(progress)
        if progress.ready:
            return progress
        _require_alive(standings, state)
        if progress.seconds > timeout_s:
            raise _too_late(progress, state, timeout_s)
        await asyncio.sleep(_POLL_S)


async def _edge_pending(address: str, key: str) -> str:
    """What a client at the edge would still miss: the way in, the router's configuration, or a healthy model."""
    headers = {"authorization": f"Bearer {key}"}
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=_EDGE_TIMEOUT_S, headers=headers) as client:
            ready = await client.get("/readyz")
            models = await client.get("/v1/models")
    except httpx.HTTPError as error:
        return f"edge: {type(error).__name__}"
    if ready.status_code != httpx.codes.OK:
        return f"gateway: {ready.text.strip()[:80]}"
    if models.status_code != httpx.codes.OK:
        return f"models: HTTP {models.status_code}"
    return "" if models.json()["data"] else "models: none yet"


def _require_alive(standings: Sequence[Standing], state: StateDir) -> None:
    for standing in standings:
        if standing.state in (ProcessState.BACKOFF, ProcessState.EXITED, ProcessState.FATAL, ProcessState.STOPPED):
            raise _failed(standing.name, f"{standing.name} does not start ({standing.state.lower()})", state)


def _too_late(progress: Progress, state: StateDir, timeout_s: float) -> Failure:
    missing = [f"{one.name} ({one.pending})" for one in progress.standings if not one.ready]
    what = f"not ready after {timeout_s:.0f} s; missing: {', '.join(missing) or progress.mesh_pending}"
    first = next((one.name for one in progress.standings if not one.ready), None)
    return _failed(first, what, state) if first else Failure(what, "see what the mesh says: headrace status")


def _failed(name: str, what: str, state: StateDir) -> Failure:
    lines = "\n".join(f"    {line}" for line in last_lines(state.log(name), _LOG_LINES))
    return Failure(
        f"{what}\n  the end of {state.log(name)}:\n{lines}",
        "fix what the log says, then: headrace up",
        ExitCode.UNAVAILABLE,
    )
