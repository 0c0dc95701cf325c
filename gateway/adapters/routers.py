"""Which router is asked: one stream that carries calls to each of them, or the channel that stands for all.

gRPC spreads calls over the routers by itself, but a stream lies on one of them for good. So where the target is a name
in the control plane's snapshot, each healthy replica gets a stream of its own, and they take turns.
"""

from __future__ import annotations

import asyncio
from typing import Final, Literal

import structlog

from headrace.control.v1 import control_pb2
from headrace.router.v1 import router_pb2_grpc
from mesh.channel import open_channel
from mesh.discovery import SnapshotWatcher, faulted
from mesh.mux import MuxChannel

_log = structlog.get_logger()
_XDS: Final = "xds:///"
# Calls on the stream of a router that left the snapshot go on to their end, for so long at most.
_LINGER_S: Final = 600.0


class Routers:
    """The routers that a target stands for. `follow` says where those of a name in the snapshot are.

    `dial` is how they are reached then: by name, so that the snapshot's limits apply, or by address.
    """

    def __init__(self, target: str, dial: Literal["xds", "address"] = "xds") -> None:
        self._dial = dial
        named = target.startswith(_XDS)
        self.all = _Router(MuxChannel(open_channel(target), carries=lambda: not named))
        self._service = target.removeprefix(_XDS) if named else ""
        self._streams: dict[tuple[str, str], _Router] = {}
        self._turn = 0
        # Faults of the data plane hit call by call, and those on the routers as a group.
        self._faulted = False
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def up(self) -> int:
        """Streams that carry calls now."""
        return sum(router.mux.up for router in self._streams.values())

    def next(self) -> router_pb2_grpc.RouterAsyncStub:
        """Where the next call belongs."""
        if not self._faulted:
            routers = list(self._streams.values())
            for _ in routers:
                self._turn = (self._turn + 1) % len(routers)
                router = routers[self._turn]
                if router.mux.up:
                    return router.stub
                router.mux.connect()
        return self.all.stub

    async def follow(self, watcher: SnapshotWatcher) -> None:
        """Keep to the snapshot until cancelled."""
        async for snapshot in watcher.updates():
            self._take(snapshot)

    async def close(self) -> None:
        """Close every channel; calls under way are cancelled."""
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        for router in (*self._streams.values(), self.all):
            await router.close(0.0)

    def _take(self, snapshot: control_pb2.Snapshot) -> None:
        service = next((s for s in snapshot.services if s.name == self._service), control_pb2.Service())
        there = {(r.id, r.address) for r in service.replicas if r.health == control_pb2.HEALTH_HEALTHY}
        named = {self._service, *(replica.id for replica in service.replicas)}
        self._faulted = not named.isdisjoint(faulted(snapshot))
        for key in self._streams.keys() - there:
            task = asyncio.create_task(self._streams.pop(key).close(_LINGER_S))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        for key in there - self._streams.keys():
            self._streams[key] = _Router(MuxChannel(open_channel(f"{_XDS}{key[0]}" if self._dial == "xds" else key[1])))
            self._streams[key].mux.connect()
            _log.info("router.found", replica=key[0])


class _Router:
    def __init__(self, mux: MuxChannel) -> None:
        self.mux = mux
        # A stub asks a channel for nothing that a MuxChannel has not.
        self.stub: router_pb2_grpc.RouterAsyncStub = router_pb2_grpc.RouterStub(mux)  # type: ignore[call-overload]

    async def close(self, grace_s: float) -> None:
        await self.mux.close(grace_s)
        await self.mux.channel.close(grace_s)
