"""Readiness as a list of named blockers, shown through the standard gRPC health service."""

from __future__ import annotations

import structlog
from grpc_health.v1 import health, health_pb2

_log = structlog.get_logger()


class Readiness:
    """A service is ready while no blocker is left. Optional parts are never blockers."""

    def __init__(self, blockers: tuple[str, ...] = ()) -> None:
        self._blockers = set(blockers)
        self._draining = False
        # What is wrong without keeping work away, by the name of the part: a refused file, for example.
        self.warnings: dict[str, str] = {}
        self.servicer = health.aio.HealthServicer()

    @property
    def pending(self) -> tuple[str, ...]:
        """What is still missing, by name; "draining" once it is over."""
        return ("draining",) if self._draining else tuple(sorted(self._blockers))

    @property
    def ready(self) -> bool:
        """Whether new work is welcome."""
        return not self.pending

    async def block(self, name: str) -> None:
        """Become unready until `clear(name)`."""
        self._blockers.add(name)
        await self._publish()

    async def clear(self, name: str) -> None:
        """Take a blocker away; ready when it was the last."""
        self._blockers.discard(name)
        await self._publish()

    def warn(self, name: str, text: str) -> None:
        """Say what is wrong with an optional part; "" where nothing is any more. Seen by anybody: no secrets."""
        if text:
            self.warnings[name] = text
        else:
            self.warnings.pop(name, None)

    async def drain(self) -> None:
        """Say NOT_SERVING from now on, for good."""
        self._draining = True
        await self._publish()

    async def _publish(self) -> None:
        serving = health_pb2.HealthCheckResponse.SERVING
        status = serving if self.ready else health_pb2.HealthCheckResponse.NOT_SERVING
        await self.servicer.set("", status)
        _log.info("health.changed", ready=self.ready, pending=self.pending)
