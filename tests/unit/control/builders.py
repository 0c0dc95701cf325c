"""Stacks, replicas and snapshots by a few words."""

from collections.abc import Mapping

from mesh import stack as stacks
from mesh.control.core.build import build_snapshot, stack_replicas
from mesh.control.core.model import Fault, Health, HealthVerdict, Snapshot
from mesh.stack import Stack

HEALTHY = HealthVerdict(Health.HEALTHY)


def stack(edge: bool = True, **counts: int) -> Stack:
    """Services with so many replicas; the one called "gateway" is of that kind and speaks HTTP as well."""
    lines = ["name: test", "control: 127.0.0.1:7000", "services:"]
    if edge:
        lines.insert(2, "edge: {listen: 127.0.0.1:8080, admin: 127.0.0.1:9901}")
    for i, (name, count) in enumerate(counts.items()):
        kind = "gateway" if name == "gateway" else "inference"
        ports = f"{{grpc: {20000 + 1000 * i}, http: {20500 + 1000 * i}}}"
        lines.append(f"  {name}: {{kind: {kind}, replicas: {count}, ports: {ports}}}")
    return stacks.parse("\n".join(lines) if counts else "\n".join(lines) + " {}")


def snapshot(
    of: Stack, verdicts: Mapping[str, HealthVerdict] | None = None, faults: tuple[Fault, ...] = ()
) -> Snapshot:
    """A stack's snapshot; all replicas are healthy unless said otherwise."""
    if verdicts is None:
        verdicts = {r.id: HEALTHY for r in of.each_replica()}
    return build_snapshot(of, stack_replicas(of, verdicts), faults, ())
