"""Live reload of the routing file: a good new one comes into force, a bad one is refused and the old one stays."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from mesh.clock import Clock
from router.adapters.routing_file import RoutingFileError, read
from router.core.router import Router

_log = structlog.get_logger()


class Reload:
    """Looks at the file, and at the calibrations it names, every so often."""

    def __init__(self, path: Path, router: Router, interval_s: float, clock: Clock) -> None:
        self._path = path
        self._router = router
        self._interval_s = interval_s
        self._clock = clock
        self._seen = self._stamp()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._clock.sleep(self._interval_s)
            stamp = await asyncio.to_thread(self._stamp)
            if stamp != self._seen:
                self._seen = stamp
                await self.load()

    async def load(self) -> None:
        """Read the file now."""
        try:
            routing = await asyncio.to_thread(read, self._path)
        except RoutingFileError as error:
            self._router.refused = str(error)
            _log.error("routing.refused", problems=str(error).splitlines(), kept=self._router.routing.version)
            return
        self._router.use(routing)
        _log.info("routing.loaded", version=routing.version)

    def _stamp(self) -> tuple[tuple[str, int, int, int], ...]:
        named = {m.cascade.calibration for m in self._router.routing.catalog.models if m.cascade}
        paths = (self._path, *(self._path.parent / name for name in sorted(named)))
        return tuple(_stat(path) for path in paths)


def _stat(path: Path) -> tuple[str, int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return str(path), 0, 0, 0
    # A file that is written twice within a tick of the kernel's clock has one time for both.
    return str(path), stat.st_mtime_ns, stat.st_ino, stat.st_size
