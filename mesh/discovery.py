"""Finding others and being found: the control plane's snapshot, and registration with Consul where there is one.

Both are optional parts: without the control plane the last good snapshot stays in use, without Consul the stack file
names every replica.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import grpc
import structlog

from headrace.control.v1 import control_pb2, control_pb2_grpc
from mesh.address import is_everywhere, split
from mesh.channel import open_channel
from mesh.clock import SYSTEM, Clock
from mesh.lifecycle import ProcessConfig
from mesh.tasks import spawn

_log = structlog.get_logger()

_FIRST_BACKOFF_S: Final = 0.1
_MAX_BACKOFF_S: Final = 2.0
# One question to the local agent; it answers in milliseconds or not at all.
_CONSUL_TIMEOUT_S: Final = 1.0
# How often a registered process makes sure that the agent still knows it: an agent that restarts may have forgotten.
_CONSUL_CHECK_S: Final = 3.0


def faulted(snapshot: control_pb2.Snapshot) -> frozenset[str]:
    """The services, and the replicas, whose calls the data plane breaks now.

    It does so call by call: what is carried over a stream of mesh.mux would slip past it.
    """
    return frozenset(fault.replica or fault.service for fault in snapshot.faults)


class SnapshotWatcher:
    """Follows the control plane's snapshot. Keeps the last good one whatever happens to the control plane.

    Start it with `service.background("snapshot", watcher.run())`. Reading `snapshot` is free and never blocks.
    """

    def __init__(self, target: str, clock: Clock = SYSTEM) -> None:
        self._target = target
        self._clock = clock
        self._changed = asyncio.Event()
        self.snapshot: control_pb2.Snapshot | None = None
        # Whether the stream to the control plane is open; False means that `snapshot` may be out of date.
        self.connected = False

    @property
    def version(self) -> str:
        """The version of the snapshot in hand; empty before the first."""
        return self.snapshot.version if self.snapshot else ""

    async def run(self) -> None:
        """Follow until cancelled, reconnecting with backoff. Raises nothing else."""
        backoff = _FIRST_BACKOFF_S
        async with open_channel(self._target) as channel:
            while True:
                if await self._follow(control_pb2_grpc.ControlStub(channel)):
                    backoff = _FIRST_BACKOFF_S
                await self._clock.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - jitter needs no secrecy
                backoff = min(backoff * 2, _MAX_BACKOFF_S)

    async def changed(self, since: str = "") -> control_pb2.Snapshot:
        """The first snapshot whose version is not `since`; at once where the one in hand already differs.

        Bursts are skipped over: only the newest is returned. Cancelling has no effect on the watcher.
        """
        while self.snapshot is None or self.snapshot.version == since:
            event = self._changed
            await event.wait()
        return self.snapshot

    async def updates(self) -> AsyncIterator[control_pb2.Snapshot]:
        """The snapshot in hand, then each newer one; a slow reader skips to the newest. Never ends by itself."""
        seen = ""
        while True:
            snapshot = await self.changed(seen)
            seen = snapshot.version
            yield snapshot

    async def _follow(self, stub: control_pb2_grpc.ControlAsyncStub) -> bool:
        """Read one stream to its end; returns whether it brought anything."""
        came = False
        try:
            # No deadline: the stream lives as long as both ends, and the channel's keepalive notices a dead peer.
            async for response in stub.WatchSnapshot(control_pb2.WatchSnapshotRequest(), wait_for_ready=True):
                came = self.connected = True
                self._take(response.snapshot)
        except grpc.aio.AioRpcError as error:
            _log.warning("snapshot.stream_lost", code=error.code().name, details=error.details())
        finally:
            self.connected = False
        return came

    def _take(self, snapshot: control_pb2.Snapshot) -> None:
        if snapshot.version == self.version:
            return
        self.snapshot = snapshot
        waiting, self._changed = self._changed, asyncio.Event()
        waiting.set()
        _log.info("snapshot.taken", version=snapshot.version, services=len(snapshot.services))


class ConsulRegistration:
    """Registers this process with the local Consul agent, with a gRPC health check. Implements mesh.lifecycle's port.

    Never fatal and never waited for: registering goes on in the background until it succeeds, and again whenever the
    agent has forgotten the process.
    """

    def __init__(
        self,
        config: ProcessConfig,
        *,
        kind: str,
        ports: Mapping[str, int] | None = None,
        metadata: Mapping[str, str] | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        # Only processes with a registry need the client library; a missing one is found at the start.
        from consul import Check  # noqa: PLC0415 - as said
        from consul.aio import Consul  # noqa: PLC0415 - as said

        self._client, self._grpc_check = Consul, Check.grpc
        self._agent_host, self._agent_port = split(config.consul)
        # Without an address Consul gives the agent's own.
        self._address = None if is_everywhere(config.listen) else split(config.listen)[0]
        self._checked = "127.0.0.1" if self._address is None else config.listen.rpartition(":")[0]
        self._service, self._id = config.service, config.replica
        # Those besides gRPC, where the process listens: port 0 is nobody's.
        self.ports = dict(ports or {})
        # Consul's metadata is flat text; control reads these keys back.
        self._meta = dict(metadata or {}) | {"kind": kind} | {f"port-{k}": str(v) for k, v in self.ports.items()}
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    async def register(self, port: int) -> None:
        """See mesh.lifecycle.Registration. Returns at once."""
        self._task = spawn("consul_registration", self._keep(port))

    async def deregister(self) -> None:
        """See mesh.lifecycle.Registration. Takes at most one second."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        try:
            async with self._agent() as agent, asyncio.timeout(_CONSUL_TIMEOUT_S):
                await agent.agent.service.deregister(self._id)
        except Exception as error:
            # Consul's own check takes the process out instead.
            _log.warning("consul.deregister_failed", error=str(error) or type(error).__name__)

    async def _keep(self, port: int) -> None:
        backoff = _FIRST_BACKOFF_S
        async with self._agent() as agent:
            while True:
                try:
                    async with asyncio.timeout(_CONSUL_TIMEOUT_S):
                        if self._id not in await agent.agent.services():
                            await self._announce(agent, port)
                except Exception as error:
                    # The client library passes its transport's errors through; whatever it is, it is tried again.
                    _log.warning("consul.register_failed", error=str(error) or type(error).__name__)
                    await self._clock.sleep(backoff)
                    backoff = min(backoff * 2, _MAX_BACKOFF_S)
                else:
                    backoff = _FIRST_BACKOFF_S
                    await self._clock.sleep(_CONSUL_CHECK_S)

    async def _announce(self, agent: Any, port: int) -> None:
        await agent.agent.service.register(
            self._service,
            service_id=self._id,
            address=self._address,
            port=port,
            meta=self._meta,
            check=self._grpc_check(f"{self._checked}:{port}", interval="1s", timeout="1s", deregister="1m"),
        )
        _log.info("consul.registered", id=self._id, port=port)

    @contextlib.asynccontextmanager
    async def _agent(self) -> AsyncIterator[Any]:
        async with self._client(host=self._agent_host, port=self._agent_port, verify=False) as agent:
            yield agent


def registration(
    config: ProcessConfig, *, kind: str, ports: Mapping[str, int] | None = None
) -> ConsulRegistration | None:
    """What `service.registration` of a process should be: None where its configuration names no registry.

    `ports` are those besides gRPC's.
    """
    return ConsulRegistration(config, kind=kind, ports=ports) if config.consul else None
