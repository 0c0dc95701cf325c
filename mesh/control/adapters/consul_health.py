"""Consul as a source: blocking queries on the health of each service that the stack names."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from consul.aio import Consul

from mesh.address import split
from mesh.clock import Clock
from mesh.control.core.consul_entries import read_entries, restarted
from mesh.control.core.view import CONSUL, MeshView
from mesh.stack import Stack
from mesh.tasks import KeyedTasks

_WAIT_S: Final = 30
# Consul adds up to a sixteenth of the wait.
_TIMEOUT_S: Final = _WAIT_S * 17 / 16 + 5
# The first answer comes at once or something is wrong.
_FIRST_TIMEOUT_S: Final = 2.0
_RETRY_S: Final = 0.5
# An agent that restarts may have forgotten everything; those who run register again within this time.
_GRACE_S: Final = 15.0
# Asked again so often meanwhile, so that what is said after it counts soon.
_GRACE_WAIT_S: Final = 1


class ConsulHealth:
    """Follows services in Consul. While Consul is away the view keeps what it said last."""

    def __init__(self, address: str, view: MeshView, clock: Clock) -> None:
        self._host, self._port = split(address)
        self._view = view
        self._clock = clock
        self._grace_until = 0.0
        self._queries: KeyedTasks[str] = KeyedTasks(self._query)

    def follow(self, stack: Stack) -> None:
        """See app.Endpoints."""
        self._queries.keep({service.name for service in stack.services})

    async def run(self) -> None:
        """See app.Endpoints."""
        await self._queries.run()

    async def _query(self, service: str) -> None:
        async with Consul(host=self._host, port=self._port, verify=False) as client:
            index: str | None = None
            while True:
                index = await self._ask(client, service, index)

    async def _ask(self, client: Any, service: str, index: str | None) -> str | None:
        """Wait for the next answer; returns the index to go on from."""
        wait_s = _GRACE_WAIT_S if self._in_grace() else _WAIT_S
        try:
            async with asyncio.timeout(_TIMEOUT_S if index else _FIRST_TIMEOUT_S):
                new, entries = await client.health.service(service, index=index, wait=f"{wait_s}s")
        except Exception as error:
            # The client library passes its transport's errors through; whatever it is, it is tried again.
            self._grace_until = self._clock.monotonic() + _GRACE_S
            self._view.source_failed(CONSUL, str(error) or type(error).__name__)
            await self._clock.sleep(_RETRY_S)
            return None
        self._take(service, entries)
        # A smaller index is that of an agent which started anew.
        return None if index and int(new) < int(index) else str(new)

    def _take(self, service: str, entries: list[dict[str, Any]]) -> None:
        replicas = read_entries(entries)
        if self._in_grace():
            replicas = restarted(self._view.registered(service), replicas)
        self._view.take_registered(service, replicas)

    def _in_grace(self) -> bool:
        return self._clock.monotonic() < self._grace_until
