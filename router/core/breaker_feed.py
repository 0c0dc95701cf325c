"""Passing on what this router holds of its targets, and taking over what others hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from headrace.router.v1 import router_pb2
from mesh.resilience import Breaker, BreakerSnapshot, BreakerState, Endpoints


class BreakerFeed:
    """The breakers' changes, for any number of readers. A slow reader holds one entry per target, not per change."""

    def __init__(self) -> None:
        self._readers: set[_Reader] = set()

    async def end(self, deadline_s: float) -> None:
        """End every watch: a router that drains has nothing more to say, and must not wait for its readers."""
        for reader in self._readers:
            reader.end()

    def changed(self, breaker: Breaker) -> None:
        """A breaker moved."""
        for reader in self._readers:
            reader.add(breaker)

    async def watch(self, endpoints: Endpoints) -> AsyncIterator[router_pb2.WatchBreakersResponse]:
        """All breaker states that ever changed, then each change, until `end`."""
        reader = _Reader()
        self._readers.add(reader)
        try:
            # Sent even when empty: it tells the reader that it is heard from now on.
            yield _response(endpoint.breaker for endpoint in endpoints if endpoint.breaker.version)
            while not reader.ended:
                yield _response(await reader.take())
        finally:
            self._readers.discard(reader)


class _Reader:
    def __init__(self) -> None:
        self._pending: dict[str, Breaker] = {}
        self._some = asyncio.Event()
        self.ended = False

    def end(self) -> None:
        self.ended = True
        self._some.set()

    def add(self, breaker: Breaker) -> None:
        self._pending[breaker.name] = breaker
        self._some.set()

    async def take(self) -> Iterable[Breaker]:
        await self._some.wait()
        pending, self._pending = self._pending, {}
        self._some.clear()
        return pending.values()


def adopt(response: router_pb2.WatchBreakersResponse, endpoints: Endpoints, deployments: frozenset[str]) -> int:
    """Take over a peer's breaker states of deployments that are known here; returns how many were news."""
    news = 0
    for entry in response.opinions:
        if entry.deployment in deployments and entry.state in _POSITIONS:
            snapshot = BreakerSnapshot(BreakerState(entry.state), entry.version, entry.open_for.ToNanoseconds() / 1e9)
            news += endpoints.of(f"{entry.deployment}/{entry.replica}").breaker.adopt(snapshot)
    return news


_POSITIONS = frozenset(int(state) for state in BreakerState)


def _response(breakers: Iterable[Breaker]) -> router_pb2.WatchBreakersResponse:
    response = router_pb2.WatchBreakersResponse()
    for breaker in breakers:
        deployment, _, replica = breaker.name.rpartition("/")
        snapshot = breaker.snapshot()
        entry = response.opinions.add(
            deployment=deployment,
            replica=replica,
            state=router_pb2.BreakerState.ValueType(int(snapshot.state)),
            version=snapshot.version,
        )
        if snapshot.open_for_s:
            entry.open_for.FromNanoseconds(int(snapshot.open_for_s * 1e9))
    return response
