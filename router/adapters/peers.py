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
from mesh.channel import open_channel
from mesh.clock import Clock
from mesh.discovery import SnapshotWatcher
from router.core.breaker_feed import adopt
from router.core.router import Router

_log = structlog.get_logger()
_KIND: Final = "router"
_PAUSE_S: Final = 0.5


class Peers:
    """Follows every other router of the snapshot. `own` is this one's replica id."""

    def __init__(self, watcher: SnapshotWatcher, router: Router, own: str, dial: str, clock: Clock) -> None:
        self._watcher = watcher
        self._router = router
        self._own = own
        self._dial = dial
        self._clock = clock
        self._follows: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            async for snapshot in self._watcher.updates():
                self._take(snapshot)
        finally:
            for task in self._follows.values():
                task.cancel()

    def _take(self, snapshot: control_pb2.Snapshot) -> None:
        there = {
            (replica.id, replica.address)
            for service in snapshot.services
            if service.kind == _KIND
            for replica in service.replicas
            if replica.id != self._own
        }
        for peer in self._follows.keys() - there:
            self._follows.pop(peer).cancel()
        for peer in there - self._follows.keys():
            self._follows[peer] = asyncio.create_task(self._follow(*peer), name=f"peer:{peer[0]}")

    async def _follow(self, replica_id: str, address: str) -> None:
        async with open_channel(f"xds:///{replica_id}" if self._dial == "xds" else address) as channel:
            stub = router_pb2_grpc.RouterStub(channel)
            while True:
                try:
                    # No deadline: the stream lives as long as the peer does.
                    async for response in stub.WatchBreakers(router_pb2.WatchBreakersRequest(), wait_for_ready=True):
                        news = adopt(response, self._router.fleet.endpoints, self._router.deployments)
                        if news:
                            _log.info("breakers.adopted", peer=replica_id, news=news)
                except grpc.aio.AioRpcError as error:
                    _log.info("peer.stream_lost", peer=replica_id, code=error.code().name)
                await self._clock.sleep(_PAUSE_S * random.uniform(0.5, 1.0))  # noqa: S311 - jitter needs no secrecy
