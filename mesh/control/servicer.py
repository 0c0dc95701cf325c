"""headrace.control.v1: messages in, the core's values out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from google.protobuf import duration_pb2, timestamp_pb2

from headrace.control.v1 import control_pb2 as pb
from headrace.control.v1 import control_pb2_grpc
from mesh.clock import Clock
from mesh.control.adapters.ads import Ads, Client
from mesh.control.core.model import Fault, Service
from mesh.control.core.publisher import Publication, Publisher
from mesh.control.core.view import MeshView
from mesh.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable

_DEFAULT_LASTS_S: Final = 60.0
MAX_WATCHERS: Final = 1024


class ControlServicer(control_pb2_grpc.ControlServicer):
    """See the contract. `faults_on`: whether faults may be injected at all."""

    def __init__(self, view: MeshView, publisher: Publisher, ads: Ads, clock: Clock, *, faults_on: bool) -> None:
        self._view = view
        self._publisher = publisher
        self._ads = ads
        self._clock = clock
        self._faults_on = faults_on
        self._closed = asyncio.Event()
        self._watchers = 0

    async def close(self, _deadline_s: float) -> None:
        """End every watch."""
        self._closed.set()

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: object) -> pb.GetSnapshotResponse:
        """See the contract."""
        return pb.GetSnapshotResponse(snapshot=self._message(self._current()))

    async def WatchSnapshot(
        self, request: pb.WatchSnapshotRequest, context: object
    ) -> AsyncIterator[pb.WatchSnapshotResponse]:
        """See the contract. Errors: RESOURCE_EXHAUSTED (too many watch)."""
        if self._watchers >= MAX_WATCHERS:
            raise ResourceExhausted(f"at most {MAX_WATCHERS} watch", reason="TOO_MANY_WATCHERS")
        self._watchers += 1
        seen: Publication | None = None
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            while True:
                newer = asyncio.ensure_future(self._publisher.changed(seen))
                try:
                    await asyncio.wait((newer, closed), return_when=asyncio.FIRST_COMPLETED)
                    if closed.done():
                        return
                    seen = newer.result()
                finally:
                    newer.cancel()
                yield pb.WatchSnapshotResponse(snapshot=self._message(seen))
        finally:
            self._watchers -= 1
            closed.cancel()

    async def ListClients(self, request: pb.ListClientsRequest, context: object) -> pb.ListClientsResponse:
        """See the contract."""
        return pb.ListClientsResponse(clients=[_client(c) for c in self._ads.clients()])

    async def InjectFault(self, request: pb.InjectFaultRequest, context: object) -> pb.InjectFaultResponse:
        """See the contract."""
        if not self._faults_on:
            raise FailedPrecondition(
                "faults are switched off; start the control plane with HEADRACE_CONTROL_FAULTS=true",
                reason="FAULTS_OFF",
            )
        current = self._current()
        fault_id = self._view.faults.put(_fault(request.fault), current.snapshot, self._clock.monotonic())
        self._view.faults_changed()
        return pb.InjectFaultResponse(id=fault_id, version=self._flushed())

    async def ClearFaults(self, request: pb.ClearFaultsRequest, context: object) -> pb.ClearFaultsResponse:
        """See the contract."""
        cleared = self._view.faults.clear(tuple(request.ids))
        if cleared:
            self._view.faults_changed()
            self._publisher.flush()
        return pb.ClearFaultsResponse(cleared=cleared)

    def _flushed(self) -> str:
        self._publisher.flush()
        return self._current().snapshot.version

    def _current(self) -> Publication:
        if self._publisher.current is None:
            raise Unavailable("no snapshot yet: not every replica has been looked at", reason="NO_SNAPSHOT")
        return self._publisher.current

    def _message(self, publication: Publication) -> pb.Snapshot:
        snapshot = publication.snapshot
        last_seen = self._view.last_seen
        return pb.Snapshot(
            version=snapshot.version,
            published=_timestamp(publication.wall),
            services=[_service(s) for s in snapshot.services],
            faults=[_fault_message(f) for f in snapshot.faults],
            sources=[
                pb.Source(name=s.name, alive=s.alive, error=s.error, last_seen=_seen(last_seen.get(s.name)))
                for s in snapshot.sources
            ],
        )


def _service(service: Service) -> pb.Service:
    replicas = [
        pb.Replica(
            id=r.id,
            address=r.address,
            health=pb.Health.ValueType(r.verdict.health),
            weight=r.weight,
            metadata=dict(r.metadata),
            reason=r.verdict.reason,
            ports={name: port for name, port in r.ports if name != "grpc"},
        )
        for r in service.replicas
    ]
    return pb.Service(name=service.name, kind=service.kind, replicas=replicas, metadata=dict(service.metadata))


def _fault(message: pb.Fault) -> Fault:
    for name in ("delay", "lasts"):
        # Beyond this nanoseconds do not fit; the core's own bounds are far below.
        if abs(getattr(message, name).seconds) > 1_000_000:
            raise InvalidArgument("is out of range", field=f"fault.{name}")
    return Fault(
        id=message.id,
        service=message.service,
        replica=message.replica,
        abort_code=message.abort_code,
        delay_s=message.delay.ToNanoseconds() / 1e9,
        percent=message.percent,
        tenant=message.tenant,
        lasts_s=message.lasts.ToNanoseconds() / 1e9 if message.HasField("lasts") else _DEFAULT_LASTS_S,
    )


def _fault_message(fault: Fault) -> pb.Fault:
    return pb.Fault(
        id=fault.id,
        service=fault.service,
        replica=fault.replica,
        abort_code=fault.abort_code,
        delay=_duration(fault.delay_s),
        percent=fault.percent,
        tenant=fault.tenant,
        lasts=_duration(fault.lasts_s),
    )


def _client(client: Client) -> pb.Client:
    subscriptions = [
        pb.Subscription(
            type_url=s.type_url,
            resource_names=("*", *s.names) if s.wildcard else s.names,
            sent_version=s.sent_version,
            acked_version=s.acked_version,
            nacked_version=s.nacked_version,
            nack_message=s.nack_message,
        )
        for s in client.session.subscriptions()
    ]
    return pb.Client(
        node_id=client.node_id,
        user_agent=client.user_agent,
        connected=_timestamp(client.connected),
        subscriptions=subscriptions,
    )


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def _timestamp(wall: float) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromNanoseconds(round(wall * 1e9))
    return stamp


def _seen(wall: float | None) -> Any:
    return None if wall is None else _timestamp(wall)
