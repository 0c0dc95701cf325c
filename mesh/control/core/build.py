"""From what the sources say to a snapshot."""

from __future__ import annotations

from collections.abc import Mapping

from mesh.control.core.faults import EDGE
from mesh.control.core.model import NOT_SEEN, Fault, HealthVerdict, Replica, Service, Snapshot, Source
from mesh.stack import Stack


def stack_replicas(stack: Stack, verdicts: Mapping[str, HealthVerdict]) -> dict[str, tuple[Replica, ...]]:
    """The replicas that a stack file names, by service, with the verdict on each."""
    return {
        service.name: tuple(
            Replica(r.id, r.address, tuple(r.ports.items()), verdicts.get(r.id, NOT_SEEN))
            for r in service.each_replica()
        )
        for service in stack.services
    }


def build_snapshot(
    stack: Stack, replicas: Mapping[str, tuple[Replica, ...]], faults: tuple[Fault, ...], sources: tuple[Source, ...]
) -> Snapshot:
    """Join the parts. Services are those of the stack; one without replicas stays, so that its callers fail fast.

    Faults on services or replicas that are gone are left out.
    """
    services = tuple(
        Service(s.name, s.kind, replicas.get(s.name, ()), tuple(s.metadata.items())) for s in stack.services
    )
    known = {s.name: {r.id for r in s.replicas} for s in services} | {EDGE: set[str]()}
    standing = tuple(f for f in faults if f.service in known and (not f.replica or f.replica in known[f.service]))
    return Snapshot(stack.edge, services, standing, sources)
