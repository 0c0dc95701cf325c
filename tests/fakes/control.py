"""A scripted control plane: it publishes the snapshot it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headrace.control.v1 import control_pb2 as pb
from headrace.control.v1 import control_pb2_grpc
from mesh.health import Readiness
from mesh.server import Server


class FakeControl(control_pb2_grpc.ControlServicer):
    """`publish` replaces the snapshot; watchers get it at once."""

    def __init__(self) -> None:
        self._snapshot = pb.Snapshot()
        self._changed = asyncio.Event()
        self._server = Server("127.0.0.1:0", Readiness(), ())
        control_pb2_grpc.add_ControlServicer_to_server(self, self._server.grpc)
        self.address = ""

    async def start(self) -> None:
        """Serve."""
        self.address = f"127.0.0.1:{await self._server.start()}"

    async def stop(self) -> None:
        """End at once."""
        await self._server.grpc.stop(0)

    def publish(
        self,
        services: dict[str, dict[str, str]],
        kinds: dict[str, str] | None = None,
        health: dict[str, pb.Health.ValueType] | None = None,
        faults: Sequence[pb.Fault] = (),
    ) -> None:
        """Services, each with its replicas' ids and addresses; healthy inference replicas unless told otherwise."""
        kinds, health = kinds or {}, health or {}
        version = str(int(self._snapshot.version or "0") + 1)
        snapshot = pb.Snapshot(version=version, faults=faults)
        for name, replicas in services.items():
            service = snapshot.services.add(name=name, kind=kinds.get(name, "inference"))
            for replica_id, address in replicas.items():
                service.replicas.add(
                    id=replica_id, address=address, health=health.get(replica_id, pb.HEALTH_HEALTHY), weight=1
                )
        self._snapshot = snapshot
        self._changed.set()
        self._changed = asyncio.Event()

    async def WatchSnapshot(self, request, context):
        while True:
            changed = self._changed
            yield pb.WatchSnapshotResponse(snapshot=self._snapshot)
            await changed.wait()
