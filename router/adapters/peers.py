"""The other routers: each follows the others' breakers, so that what one has found out holds for all.

There is no store between them and no leader. A router that cannot be reached is simply not heard; its breakers and
ours go on working by what each sees itself.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

import grpc
import structlog

from headrace.control.v1 import control_pb2
from headrace.router.v1 import router_pb2, router_pb2_grpc
from mesh.client import Connections, Dial
from mesh.clock import Clock
from mesh.discovery import SnapshotWatcher
from mesh.tasks import KeyedTasks
from router.core.breaker_feed import adopt
from router.core.router import Router

_log = structlog.get_logger()
_KIND: Final = "router"
_PAUSE_S: Final = 0.5
# A router: its replica id, its address, and the service it belongs to.
_Peer = tuple[str, str, str]


class Peers:
    """Follows every other router of the snapshot. `own` is this one's replica id."""

    def __init__(self, watcher: SnapshotWatcher, router: Router, own: str, dial: Dial, clock: Clock) -> None:
        self._watcher = watcher
        self._router = router
        self._own = own
        self._clock = clock
        self._connections = Connections(dial, carried=False)
        self._follows: KeyedTasks[_Peer] = KeyedTasks(self._follow)

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follows.run())
                async for snapshot in self._watcher.updates():
                    self._take(snapshot)
        finally:
            await self._connections.close()

    def _take(self, snapshot: control_pb2.Snapshot) -> None:
        self._follows.keep(
            {
                (replica.id, replica.address, service.name)
                for service in snapshot.services
                if service.kind == _KIND
                for replica in service.replicas
                if replica.id != self._own
            }
        )

    async def _follow(self, peer: _Peer) -> None:
        replica, address, _ = peer
        stub: router_pb2_grpc.RouterAsyncStub = self._connections.of(*peer).stub(router_pb2_grpc.RouterStub)
        try:
            while True:
                await self._adopt(replica, stub)
                await self._clock.sleep(_PAUSE_S * random.uniform(0.5, 1.0))  # noqa: S311 - jitter needs no secrecy
        finally:
            self._connections.drop(replica, address)

    async def _adopt(self, replica: str, stub: router_pb2_grpc.RouterAsyncStub) -> None:
        """Take over what a peer says until its stream ends."""
        try:
            # No deadline: the stream lives as long as the peer does.
            async for response in stub.WatchBreakers(router_pb2.WatchBreakersRequest(), wait_for_ready=True):
                news = adopt(response, self._router.fleet.endpoints, self._router.deployments)
                if news:
                    _log.info("breakers.adopted", peer=replica, news=news)
        except grpc.aio.AioRpcError as error:
            _log.info("peer.stream_lost", peer=replica, code=error.code().name)
