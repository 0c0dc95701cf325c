"""The one place from which snapshots go out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from mesh.clock import Clock
from mesh.control.core.model import Snapshot
from mesh.control.core.xds.build import dangling
from mesh.control.core.xds.resources import ResourceSet

_log = structlog.get_logger()

# A change after a quiet time goes out at once; those that follow within this time go out together.
WINDOW_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Publication:
    """A snapshot that is in force, with its resources. `wall` is when it was published, in seconds since the epoch."""

    snapshot: Snapshot
    resources: ResourceSet
    wall: float


class Publisher:
    """Turns a view into publications, coalescing bursts. What is not consistent is not published: the last one stays.

    `take` gives the snapshot, or None while it is too early for one; `render` makes its resources.
    """

    def __init__(
        self, take: Callable[[], Snapshot | None], render: Callable[[Snapshot], ResourceSet], clock: Clock
    ) -> None:
        self._take = take
        self._render = render
        self._clock = clock
        self._dirty = asyncio.Event()
        self._published = asyncio.Event()
        self.current: Publication | None = None

    def touch(self) -> None:
        """Something may have changed."""
        self._dirty.set()

    def flush(self) -> None:
        """Publish now if anything has changed."""
        self._dirty.clear()
        snapshot = self._take()
        if snapshot is None or (self.current and self.current.snapshot.version == snapshot.version):
            return
        resources = self._render(snapshot)
        if problems := dangling(resources):
            _log.error("snapshot.rejected", version=snapshot.version, problems=problems)
            return
        self.current = Publication(snapshot, resources, self._clock.wall())
        waiting, self._published = self._published, asyncio.Event()
        waiting.set()
        _log.info("snapshot.published", version=snapshot.version, **_counts(snapshot))

    async def run(self) -> None:
        """Publish changes until cancelled."""
        while True:
            await self._dirty.wait()
            self.flush()
            await self._clock.sleep(WINDOW_S)

    async def changed(self, since: Publication | None = None) -> Publication:
        """The first publication that is not `since`; at once where there is one."""
        while self.current is None or self.current is since:
            await self._published.wait()
        return self.current

    async def updates(self) -> AsyncIterator[Publication]:
        """The publication in force and then each newer one; a slow reader skips to the newest."""
        seen: Publication | None = None
        while True:
            seen = await self.changed(seen)
            yield seen


def _counts(snapshot: Snapshot) -> dict[str, int]:
    replicas = [r for s in snapshot.services for r in s.replicas]
    return {"replicas": len(replicas), "healthy": sum(r.healthy for r in replicas), "faults": len(snapshot.faults)}
