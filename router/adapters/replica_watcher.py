"""Who is there, from the control plane's snapshot; how busy they are, and what they serve, from themselves."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import grpc
import structlog

from headrace.control.v1 import control_pb2
from headrace.inference.v1 import inference_pb2
from mesh.clock import Clock
from mesh.discovery import SnapshotWatcher, faulted
from mesh.tasks import KeyedTasks
from router.adapters.nodes import NodeClient
from router.core.fleet import Card, Fleet, Replica

_log = structlog.get_logger()
_KIND: Final = "inference"
_DESCRIBE_S: Final = 2.0
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_TAKES_WORK: Final = (control_pb2.HEALTH_HEALTHY, control_pb2.HEALTH_UNSPECIFIED)
_CAPABILITIES: Final = tuple(field.name for field in inference_pb2.Capabilities.DESCRIPTOR.fields)


class ReplicaWatcher:
    """Keeps the fleet up to date."""

    def __init__(self, watcher: SnapshotWatcher, fleet: Fleet, nodes: NodeClient, clock: Clock) -> None:
        self._watcher = watcher
        self._fleet = fleet
        self._nodes = nodes
        self._clock = clock
        self._watches: KeyedTasks[Replica] = KeyedTasks(self._watch)

    async def first(self) -> None:
        """Return once a snapshot has been taken over."""
        self._take(await self._watcher.changed())

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watches.run())
            async for snapshot in self._watcher.updates():
                self._take(snapshot)

    def _take(self, snapshot: control_pb2.Snapshot) -> None:
        listed = {
            replica.id: (service.name, replica.address, replica.health)
            for service in snapshot.services
            if service.kind == _KIND
            for replica in service.replicas
        }
        self._nodes.avoid_streams(faulted(snapshot))
        now = self._clock.monotonic()
        came, gone = self._fleet.seen({i: (s, a) for i, (s, a, _) in listed.items()}, now)
        for replica in self._fleet.replicas.values():
            health = listed[replica.id][2]
            moved = self._fleet.judged(replica, health in _TAKES_WORK, now)
            if moved and health == control_pb2.HEALTH_UNHEALTHY:
                self._nodes.suspect(replica)
        self._watches.keep(set(self._fleet.replicas.values()))
        for replica in gone:
            self._nodes.drop(replica)
        if came or gone:
            _log.info("fleet.changed", came=[r.id for r in came], gone=[r.id for r in gone])

    async def _watch(self, replica: Replica) -> None:
        """Follow one replica's load until cancelled. Its silence is no failure: the snapshot says who is there."""
        failures = 0
        while True:
            stub = self._nodes.stub(replica)
            try:
                describe = inference_pb2.DescribeRequest()
                described = await stub.Describe(describe, timeout=_DESCRIBE_S, wait_for_ready=True)
                self._fleet.described(replica, {card.name: _card(card) for card in described.models})
                # No deadline: the stream lives as long as the replica does.
                async for report in stub.WatchLoad(inference_pb2.WatchLoadRequest()):
                    failures = 0
                    replica.report(
                        queued=report.queued,
                        running=report.running,
                        capacity=report.capacity,
                        tokens_per_second=report.tokens_per_second,
                        kv_used=report.kv_used,
                        draining=report.draining,
                    )
            except grpc.aio.AioRpcError as error:
                _log.debug("load.stream_lost", replica=replica.id, code=error.code().name)
            pause = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
            failures += 1
            await self._clock.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter needs no secrecy


def _card(card: inference_pb2.ModelCard) -> Card:
    able = frozenset(name for name in _CAPABILITIES if getattr(card.capabilities, name))
    return Card(card.revision, card.context_length, able, card.account)
