"""What the sources have said so far, and the snapshot that follows from it."""

from __future__ import annotations

from collections.abc import Callable

from mesh.clock import Clock
from mesh.control.core.build import build_snapshot, stack_replicas
from mesh.control.core.faults import FaultRegistry
from mesh.control.core.model import HealthVerdict, Replica, Snapshot, Source
from mesh.stack import Stack

STACK = "stack"
CONSUL = "consul"


class MeshView:
    """Sources write to it, the publisher reads it. `on_change` is called after each write that may change the snapshot.

    A source that fails keeps what it said last.
    """

    def __init__(self, stack: Stack, clock: Clock, on_change: Callable[[], None], *, consul: bool) -> None:
        self.stack = stack
        self.faults = FaultRegistry()
        self._clock = clock
        self._on_change = on_change
        self._verdicts: dict[str, HealthVerdict] = {}
        self._registered: dict[str, tuple[Replica, ...]] | None = {} if consul else None
        self._sources = {STACK: Source(STACK, alive=True)}
        if consul:
            self._sources[CONSUL] = Source(CONSUL, alive=False, error="not asked yet")
        # When each source last spoke, in seconds since the epoch.
        self.last_seen = {STACK: clock.wall()}

    def take_stack(self, stack: Stack) -> None:
        """The stack file has changed."""
        self.stack = stack
        ids = {r.id for r in stack.each_replica()}
        self._verdicts = {i: v for i, v in self._verdicts.items() if i in ids}
        if self._registered is not None:
            names = {s.name for s in stack.services}
            self._registered = {n: r for n, r in self._registered.items() if n in names}
        self.source_alive(STACK)
        self._on_change()

    def take_verdict(self, replica: str, verdict: HealthVerdict) -> None:
        """A replica of the stack has been looked at."""
        self._verdicts[replica] = verdict
        self._on_change()

    def take_registered(self, service: str, replicas: tuple[Replica, ...]) -> None:
        """Consul has said who is registered for a service."""
        if self._registered is not None and self.stack.service(service):
            self._registered[service] = replicas
        self.source_alive(CONSUL)
        self._on_change()

    def registered(self, service: str) -> tuple[Replica, ...]:
        """What Consul said last."""
        return (self._registered or {}).get(service, ())

    def source_alive(self, name: str) -> None:
        """A source has answered."""
        self.last_seen[name] = self._clock.wall()
        self._set_source(Source(name, alive=True))

    def source_failed(self, name: str, error: str) -> None:
        """A source is away, or says what cannot be used."""
        self._set_source(Source(name, alive=False, error=error))

    def faults_changed(self) -> None:
        """Call after each change of `faults`."""
        self._on_change()

    @property
    def complete(self) -> bool:
        """Whether every replica or service has been heard of once.

        Before that a snapshot would tell clients that healthy replicas are gone.
        """
        if self._registered is not None:
            return all(s.name in self._registered for s in self.stack.services)
        return all(r.id in self._verdicts for r in self.stack.each_replica())

    def snapshot(self) -> Snapshot:
        """The mesh as the sources say it is now."""
        replicas = self._registered
        if replicas is None:
            replicas = stack_replicas(self.stack, self._verdicts)
        return build_snapshot(self.stack, replicas, self.faults.all(), tuple(self._sources.values()))

    def _set_source(self, source: Source) -> None:
        if self._sources[source.name] != source:
            self._sources[source.name] = source
            self._on_change()
