"""Watching from the side who is on the path: the control plane's snapshot, and every router's view of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

import grpc

from headrace.control.v1 import control_pb2, control_pb2_grpc
from headrace.router.v1 import router_pb2, router_pb2_grpc
from mesh.channel import open_channel
from mesh.stack import Stack
from ops.clients import router_addresses

_SAMPLE_S: Final = 0.05
_CALL_S: Final = 1.0


class Watch:
    """What was seen. Times are those of the clock that was handed in."""

    def __init__(self, stack: Stack, targets: Iterable[str], now: Callable[[], float]) -> None:
        self._stack = stack
        self._targets = tuple(targets)
        self._now = now
        self._unhealthy: frozenset[str] = frozenset()
        # Whether every target was on the path, whenever that changed.
        self.changes: list[tuple[float, bool]] = []
        self.opened: set[str] = set()
        # How often the breaker of a deployment closed again: of all its replicas, at every router.
        self.closed: Counter[str] = Counter()
        self._shut: frozenset[str] = frozenset()
        # What happened, in words, for the report.
        self.events: list[tuple[float, str]] = []

    def ejected(self, since: float) -> float | None:
        """Seconds from `since` until a target was off the path; None where it never was."""
        return next((round(at - since, 3) for at, on in self.changes if at >= since and not on), None)

    def recovered(self, since: float) -> float | None:
        """Seconds from `since` until every target was on the path for good; None where that was not seen."""
        if not self.changes or not self.changes[-1][1]:
            return None
        return round(max(0.0, self.changes[-1][0] - since), 3)

    async def follow_snapshot(self) -> None:
        """Note which replicas the control plane takes for healthy."""
        async with open_channel(self._stack.control) as channel:
            stub = control_pb2_grpc.ControlStub(channel)
            while True:
                with suppress(grpc.aio.AioRpcError):
                    async for answer in stub.WatchSnapshot(control_pb2.WatchSnapshotRequest()):
                        self._take_snapshot(answer.snapshot)
                await asyncio.sleep(_SAMPLE_S)

    async def sample_routers(self) -> None:
        """Note what the routers think of the targets."""
        async with AsyncExitStack() as stack:
            channels = [await stack.enter_async_context(open_channel(a)) for a in router_addresses(self._stack)]
            stubs = [router_pb2_grpc.RouterStub(channel) for channel in channels]
            # What a router said last stands while it says nothing: it may be busy, and silence is no news of a target.
            known: list[router_pb2.GetStateResponse | None] = [None] * len(stubs)
            while True:
                said = await asyncio.gather(*map(_state, stubs))
                known = [new or old for new, old in zip(said, known, strict=True)]
                self._note([state for state in known if state is not None])
                await asyncio.sleep(_SAMPLE_S)

    def _take_snapshot(self, snapshot: control_pb2.Snapshot) -> None:
        unhealthy = frozenset(
            replica.id
            for service in snapshot.services
            for replica in service.replicas
            if replica.health != control_pb2.HEALTH_HEALTHY
        )
        for name in sorted(unhealthy - self._unhealthy):
            self.events.append((self._now(), f"{name} leaves the snapshot"))
        for name in sorted(self._unhealthy - unhealthy):
            self.events.append((self._now(), f"{name} is back in the snapshot"))
        self._unhealthy = unhealthy

    def _note(self, states: list[router_pb2.GetStateResponse]) -> None:
        off = any(self._is_target(name, name.rpartition("-")[0]) for name in self._unhealthy)
        for state in states:
            for deployment in state.deployments:
                off = self._off_path(deployment) or off
        self._note_closings(states)
        if not self.changes or self.changes[-1][1] == off:
            self.changes.append((self._now(), not off))

    def _note_closings(self, states: list[router_pb2.GetStateResponse]) -> None:
        shut = frozenset(one.name for state in states for one in state.deployments if _any_shut(one))
        for name in sorted(self._shut - shut):
            self.closed[name] += 1
            self.events.append((self._now(), f"the breaker of {name} closes"))
        self._shut = shut

    def _off_path(self, deployment: router_pb2.DeploymentState) -> bool:
        whole = deployment.service in self._targets
        held_back = deployment.backpressure_left.ToNanoseconds() > 0
        off = whole and (held_back or _shut(deployment.breaker))
        opened = deployment.breaker == router_pb2.BREAKER_STATE_OPEN
        for replica in deployment.replicas:
            opened = opened or replica.breaker == router_pb2.BREAKER_STATE_OPEN
            off = off or (self._is_target(replica.id, deployment.service) and _shut(replica.breaker))
        if opened and deployment.name not in self.opened:
            self.opened.add(deployment.name)
            self.events.append((self._now(), f"the breaker of {deployment.name} opens"))
        return off

    def _is_target(self, replica: str, service: str) -> bool:
        return replica in self._targets or service in self._targets


def _any_shut(deployment: router_pb2.DeploymentState) -> bool:
    return _shut(deployment.breaker) or any(_shut(replica.breaker) for replica in deployment.replicas)


def _shut(breaker: router_pb2.BreakerState.ValueType) -> bool:
    return breaker in (router_pb2.BREAKER_STATE_OPEN, router_pb2.BREAKER_STATE_HALF_OPEN)


async def _state(stub: router_pb2_grpc.RouterAsyncStub) -> router_pb2.GetStateResponse | None:
    try:
        return await stub.GetState(router_pb2.GetStateRequest(), timeout=_CALL_S)
    except grpc.aio.AioRpcError:
        return None


@asynccontextmanager
async def watching(stack: Stack, targets: Iterable[str], now: Callable[[], float]) -> AsyncIterator[Watch]:
    """Watch while inside."""
    watch = Watch(stack, targets, now)
    tasks = [asyncio.create_task(watch.follow_snapshot()), asyncio.create_task(watch.sample_routers())]
    try:
        yield watch
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
