"""Puts the control plane together."""

from __future__ import annotations

import dataclasses
from typing import Final, Protocol

from envoy.service.discovery.v3 import ads_pb2_grpc

from headrace.control.v1 import control_pb2_grpc
from mesh import stack as stacks
from mesh.clock import SYSTEM, Clock
from mesh.control.adapters.ads import SERVICE_NAME as ADS_NAME
from mesh.control.adapters.ads import Ads
from mesh.control.adapters.metrics import count_snapshots
from mesh.control.adapters.replica_health import ReplicaHealth
from mesh.control.config import ControlConfig
from mesh.control.core.model import Snapshot
from mesh.control.core.publisher import Publisher
from mesh.control.core.view import STACK, MeshView
from mesh.control.core.xds.build import build_resources
from mesh.control.core.xds.resources import ResourceSet
from mesh.control.servicer import ControlServicer
from mesh.lifecycle import Service
from mesh.stack import Stack
from mesh.watched_file import Refusal, WatchedFile

_CONTROL_NAME: Final = "headrace.control.v1.Control"
# How late a fault may end.
_EXPIRY_S: Final = 0.25
# A look at the file's status costs microseconds, works on every file system, and sees a file that was replaced.
_STACK_POLL_S: Final = 0.2


async def build(config: ControlConfig) -> Service:
    """A control plane that is ready to run. Raises FileErrors where the stack file is wrong."""
    file = WatchedFile("stack", config.stack, stacks.load, interval_s=_STACK_POLL_S)
    stack = file.load()
    config = dataclasses.replace(config, listen=config.listen or stack.control, consul=config.consul or stack.consul)
    service = Service(config, (_CONTROL_NAME, ADS_NAME), blockers=("first_snapshot",))
    _Plane(config, stack, SYSTEM).attach(service, file)
    return service


class Endpoints(Protocol):
    """Where the health of replicas is learned: by looking at them, or from Consul."""

    def follow(self, stack: Stack) -> None:
        """Learn it for this stack from now on."""
        ...

    async def run(self) -> None:
        """Until cancelled. Raises what is a defect, never what a replica or Consul does."""
        ...


class _Plane:
    """The parts, and who tells whom."""

    def __init__(self, config: ControlConfig, stack: Stack, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._publisher = Publisher(self._take, self._render, clock)
        self._view = MeshView(stack, clock, self._publisher.touch, consul=bool(config.consul))
        self._ads = Ads(self._publisher, clock)
        self._endpoints = self._make_endpoints()
        self._endpoints.follow(stack)

    def attach(self, service: Service, file: WatchedFile[Stack]) -> None:
        """Add everything to the process."""
        config, clock = self._config, self._clock
        servicer = ControlServicer(self._view, self._publisher, self._ads, clock, faults_on=config.faults)
        control_pb2_grpc.add_ControlServicer_to_server(servicer, service.server.grpc)
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self._ads, service.server.grpc)
        service.background("endpoints", self._endpoints.run())
        service.follow(file, self._use, self._refuse)
        service.background("fault_expiry", self._expire_faults())
        service.background("publish", self._publisher.run())
        service.background("push", self._ads.run())
        service.background("metrics", count_snapshots(self._publisher))
        service.starting("first_snapshot", self._first_snapshot())
        # Watching clients never end by themselves; they keep what they have.
        service.drains += [self._ads.close, servicer.close]

    def _make_endpoints(self) -> Endpoints:
        if not self._config.consul:
            return ReplicaHealth(self._view.take_verdict, self._clock)
        # Only a mesh with a registry needs its client library.
        from mesh.control.adapters.consul_health import ConsulHealth  # noqa: PLC0415 - as said

        return ConsulHealth(self._config.consul, self._view, self._clock)

    def _take(self) -> Snapshot | None:
        return self._view.snapshot() if self._publisher.current or self._view.complete else None

    def _render(self, snapshot: Snapshot) -> ResourceSet:
        return build_resources(snapshot, self._config.max_requests, faults_on=self._config.faults)

    def _use(self, stack: Stack) -> None:
        self._view.take_stack(stack)
        self._endpoints.follow(stack)

    def _refuse(self, refusal: Refusal) -> None:
        self._view.source_failed(STACK, "; ".join(refusal.problems))

    async def _first_snapshot(self) -> None:
        await self._publisher.changed()

    async def _expire_faults(self) -> None:
        while True:
            await self._clock.sleep(_EXPIRY_S)
            if self._view.faults.expire(self._clock.monotonic()):
                self._view.faults_changed()
