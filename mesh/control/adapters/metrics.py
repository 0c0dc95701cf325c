"""What the control plane shows Prometheus of the snapshot in force."""

from __future__ import annotations

from collections import Counter

import prometheus_client

from mesh.control.core.model import Health, Snapshot
from mesh.control.core.publisher import Publisher

_replicas = prometheus_client.Gauge("headrace_control_replicas", "Replicas by health.", ("service", "health"))
_faults = prometheus_client.Gauge("headrace_control_faults", "Faults that are injected now.")
_sources = prometheus_client.Gauge(
    "headrace_control_source_alive", "Whether a source of endpoints answers.", ("source",)
)
_snapshots = prometheus_client.Counter("headrace_control_snapshots", "Snapshots published.")


async def count_snapshots(publisher: Publisher) -> None:
    """Show each snapshot, until cancelled."""
    async for publication in publisher.updates():
        _snapshots.inc()
        _show(publication.snapshot)


def _show(snapshot: Snapshot) -> None:
    # Services that left the stack may not stand there for ever.
    _replicas.clear()
    for service in snapshot.services:
        counts = Counter(replica.verdict.health for replica in service.replicas)
        for health in Health:
            _replicas.labels(service.name, health.name.lower()).set(counts[health])
    _faults.set(len(snapshot.faults))
    for source in snapshot.sources:
        _sources.labels(source.name).set(source.alive)
