"""What Consul says of a service, as replicas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mesh.control.core.model import Health, HealthVerdict, Replica

_PORT_PREFIX: Final = "port-"
_MAX_REASON_CHARS: Final = 200


def read_entries(entries: Iterable[Mapping[str, Any]]) -> tuple[Replica, ...]:
    """The entries of /v1/health/service, as replicas by id. A process that is registered twice counts once."""
    replicas = {replica.id: replica for replica in map(_replica, entries)}
    return tuple(replicas[i] for i in sorted(replicas))


def restarted(before: Iterable[Replica], now: Iterable[Replica]) -> tuple[Replica, ...]:
    """What to believe shortly after an agent came back: those it has forgotten or not checked yet are as they were."""
    replicas = {r.id: r for r in now} | {r.id: r for r in before}
    replicas |= {r.id: r for r in now if r.verdict.health is not Health.UNKNOWN}
    return tuple(replicas[i] for i in sorted(replicas))


def _replica(entry: Mapping[str, Any]) -> Replica:
    service = entry["Service"]
    meta: dict[str, str] = service.get("Meta") or {}
    host = service["Address"] or entry["Node"]["Address"]
    ports = {"grpc": service["Port"]}
    for key, value in meta.items():
        if key.startswith(_PORT_PREFIX) and value.isdigit():
            ports[key.removeprefix(_PORT_PREFIX)] = int(value)
    weights: dict[str, int] = service.get("Weights") or {}
    return Replica(
        id=service["ID"],
        address=f"{host}:{service['Port']}",
        ports=tuple(ports.items()),
        verdict=_verdict(entry.get("Checks") or ()),
        weight=max(1, weights.get("Passing", 1)),
        metadata=tuple((k, v) for k, v in sorted(meta.items()) if not k.startswith(_PORT_PREFIX)),
    )


def _verdict(checks: Iterable[Mapping[str, Any]]) -> HealthVerdict:
    failing = [check for check in checks if check["Status"] != "passing"]
    if not failing:
        return HealthVerdict(Health.HEALTHY)
    # A check that has not run yet is critical and says nothing.
    reason = next((str(check["Output"]) for check in failing if check.get("Output")), "")
    if not reason:
        return HealthVerdict(Health.UNKNOWN, "not checked yet")
    return HealthVerdict(Health.UNHEALTHY, reason.strip()[:_MAX_REASON_CHARS])
