"""Breaking things, and healing them whatever happens."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

import grpc

from headrace.control.v1 import control_pb2, control_pb2_grpc
from mesh.channel import open_channel
from mesh.errors import from_rpc_error
from ops.drills.asking import AskedRequests
from ops.drills.environment import DrillEnvironment
from ops.drills.provider.app import Provider
from ops.drills.provider.faults import Fault, from_fields
from ops.drills.spec import Drill, FaultPart
from ops.failure import ExitCode, Failure
from ops.local.supervisor import Supervisor

_CALL_S: Final = 5.0
# A fault ends by itself so long after the drill should have healed it.
_SLACK_S: Final = 10.0


class InjectedFault(Protocol):
    """One thing that can be broken. `heal` may be called twice, and before `inject`."""

    async def inject(self) -> None:
        """Break it. Raises Failure where it cannot be."""
        ...

    async def heal(self) -> None:
        """Undo it."""
        ...


@asynccontextmanager
async def broken(faults: Sequence[InjectedFault], now: Callable[[], float]) -> AsyncIterator[float]:
    """Everything is broken while inside, and healed on every way out. Yields when it began to be.

    That is before the first fault is there: it may be noticed while it, or the next, is still being made.
    Raises Failure where something cannot be broken or healed.
    """
    began = now()
    try:
        for one in faults:
            await one.inject()
        yield began
    finally:
        await asyncio.shield(_heal(faults))


async def _heal(faults: Sequence[InjectedFault]) -> None:
    failures = [f for f in await asyncio.gather(*(one.heal() for one in faults), return_exceptions=True) if f]
    if failures:
        raise Failure(f"not everything could be healed: {failures[0]!r}", "see: headrace status", ExitCode.SOFTWARE)


def injected_faults(drill: Drill, environment: DrillEnvironment) -> list[InjectedFault]:
    """What the drill breaks, in its order. Raises Failure where the environment has no such thing."""
    return [_injected_fault(part, i, drill, environment) for i, part in enumerate(drill.faults)]


def _injected_fault(part: FaultPart, number: int, drill: Drill, environment: DrillEnvironment) -> InjectedFault:
    lasts_s = drill.load.during_s + _SLACK_S
    if part.what == "requests":
        if not environment.requests_key:
            raise Failure("requests need a key of another tenant", "run the drill on its own stack", ExitCode.USAGE)
        return AskedRequests(part, drill.load.model, environment.url, environment.requests_key)
    if part.what == "kill":
        return _Killed(lambda: _pid(environment, part.target))
    if part.what == "stop":
        return _Stopped(lambda: _pid(environment, part.target), lasts_s)
    if part.what == "partition":
        agent = environment.consul
        if agent is None:
            raise Failure("this stack has no Consul of the drill's own", "run the drill on its own stack")
        # An agent that is stopped is to everyone else one that no packet reaches.
        return _Stopped(lambda: agent.pid, lasts_s)
    if part.what == "provider":
        if part.target not in environment.providers:
            raise Failure(f"no scriptable provider {part.target!r} here", "run the drill on its own stack")
        return _ProviderFault(environment.providers[part.target], from_fields(part.fault))
    return _XdsFault(environment.stack.control, _fault(part, f"drill-{number}", lasts_s))


class _Killed:
    """A process that is killed; its supervisor heals it."""

    def __init__(self, pid: Callable[[], int]) -> None:
        self._pid = pid

    async def inject(self) -> None:
        os.kill(self._pid(), signal.SIGKILL)

    async def heal(self) -> None:
        """The supervisor does it."""


class _Stopped:
    """A process that stands still."""

    def __init__(self, pid: Callable[[], int], lasts_s: float) -> None:
        self._find = pid
        self._lasts_s = lasts_s
        self._pid = 0
        self._healer: asyncio.subprocess.Process | None = None

    async def inject(self) -> None:
        self._pid = self._find()
        # Goes on by itself even if the drill's own process is killed meanwhile.
        script = f"sleep {self._lasts_s:.1f}; kill -CONT {self._pid}"
        self._healer = await asyncio.create_subprocess_exec("/bin/sh", "-c", script, start_new_session=True)
        os.kill(self._pid, signal.SIGSTOP)

    async def heal(self) -> None:
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGCONT)
        if self._healer is not None and self._healer.returncode is None:
            os.killpg(self._healer.pid, signal.SIGKILL)
            await self._healer.wait()


class _ProviderFault:
    """A scriptable provider that goes wrong."""

    def __init__(self, provider: Provider, fault: Fault) -> None:
        self._provider = provider
        self._fault = fault

    async def inject(self) -> None:
        await self._provider.set_faults([self._fault])

    async def heal(self) -> None:
        await self._provider.set_faults([])


class _XdsFault:
    """A fault in the control plane's snapshot; it ends by itself if it is not cleared."""

    def __init__(self, control: str, fault: control_pb2.Fault) -> None:
        self._control = control
        self._fault = fault

    async def inject(self) -> None:
        async with open_channel(self._control) as channel:
            try:
                request = control_pb2.InjectFaultRequest(fault=self._fault)
                await control_pb2_grpc.ControlStub(channel).InjectFault(request, timeout=_CALL_S)
            except grpc.aio.AioRpcError as error:
                what = f"the control plane injects no fault: {from_rpc_error(error).message}"
                raise Failure(what, "see docs/drills.md", ExitCode.UNAVAILABLE) from error

    async def heal(self) -> None:
        async with open_channel(self._control) as channel:
            with suppress(grpc.aio.AioRpcError):
                request = control_pb2.ClearFaultsRequest(ids=[self._fault.id])
                await control_pb2_grpc.ControlStub(channel).ClearFaults(request, timeout=_CALL_S)


def _fault(part: FaultPart, fault_id: str, lasts_s: float) -> control_pb2.Fault:
    service, _, number = part.target.rpartition("-")
    on_replica = bool(service) and number.isdigit()
    fault = control_pb2.Fault(
        id=fault_id,
        service=service if on_replica else part.target,
        replica=part.target if on_replica else "",
        abort_code=part.code if part.what == "abort" else 0,
        percent=part.percent,
        tenant=part.tenant,
    )
    fault.lasts.FromNanoseconds(int(lasts_s * 1e9))
    if part.what == "delay":
        fault.delay.FromNanoseconds(int(part.delay_s * 1e9))
    return fault


def _pid(environment: DrillEnvironment, process: str) -> int:
    for info in Supervisor(environment.state).processes():
        if info.name == process and info.pid:
            return info.pid
    raise Failure(f"no process {process!r} runs here", "see what does: headrace status", ExitCode.USAGE)
