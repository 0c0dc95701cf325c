"""The mesh as one immutable value."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from functools import cached_property

import msgspec

from mesh.stack import Edge


class Health(enum.IntEnum):
    """A replica's health. The numbers are those of the contract's enum."""

    UNKNOWN = 1
    HEALTHY = 2
    DRAINING = 3
    UNHEALTHY = 4


@dataclass(frozen=True, slots=True)
class HealthVerdict:
    """What a source says of one replica; `reason` is empty for a healthy one."""

    health: Health
    reason: str = ""


NOT_SEEN = HealthVerdict(Health.UNKNOWN, "not seen yet")


@dataclass(frozen=True, slots=True)
class Replica:
    """One process of a service; `address` is host:port."""

    id: str
    address: str
    # Named ports on the same host, gRPC's among them.
    ports: tuple[tuple[str, int], ...]
    verdict: HealthVerdict
    weight: int = 1
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether clients are told of it."""
        return self.verdict.health is Health.HEALTHY

    def port(self, name: str) -> int | None:
        """The port of that name."""
        return dict(self.ports).get(name)


@dataclass(frozen=True, slots=True)
class Service:
    """A group of replicas that answer the same questions."""

    name: str
    kind: str
    replicas: tuple[Replica, ...]
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """Something made to go wrong on purpose, for the callers of a service or of one replica of it."""

    id: str
    service: str
    # Empty: all replicas.
    replica: str = ""
    # A gRPC code; 0: no abort.
    abort_code: int = 0
    delay_s: float = 0.0
    # Share of calls, 0 to 100.
    percent: float = 100.0
    # Empty: all tenants.
    tenant: str = ""
    lasts_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Source:
    """Where endpoints come from, and whether it is alive."""

    name: str
    alive: bool
    error: str = ""


@dataclass(frozen=True)
class Snapshot:
    """The mesh at one moment. Equal contents have equal versions."""

    edge: Edge | None
    services: tuple[Service, ...]
    faults: tuple[Fault, ...] = ()
    sources: tuple[Source, ...] = ()

    @cached_property
    def version(self) -> str:
        """A hash of the content, in 16 hex digits."""
        content = (self.edge, self.services, self.faults, self.sources)
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:16]

    def service(self, name: str) -> Service | None:
        """The service of that name."""
        return next((s for s in self.services if s.name == name), None)
