"""The faults in force: bounded, each ending by itself."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Final

from mesh.control.core.model import Fault, Snapshot
from mesh.errors import InvalidArgument, NotFound, ResourceExhausted

EDGE: Final = "edge"
# Services of this kind are called by the edge, as one group.
EDGE_KIND: Final = "gateway"
# Each fault that hits one call is one filter in its path; the filters are always there, so their number is fixed.
SLOTS: Final = 4
MAX_FAULTS: Final = 64
_MAX_S: Final = 3600.0
_MAX_DELAY_S: Final = 300.0
_CODES: Final = range(17)


class FaultRegistry:
    """Faults by id. Times are seconds of one monotonic clock, handed in."""

    def __init__(self) -> None:
        self._faults: dict[str, tuple[Fault, float]] = {}
        self._numbers = itertools.count(1)

    def all(self) -> tuple[Fault, ...]:
        """The faults in force, by id."""
        return tuple(fault for _, (fault, _) in sorted(self._faults.items()))

    def put(self, fault: Fault, snapshot: Snapshot, now: float) -> str:
        """Add a fault, or replace the one with its id and start its time anew; returns its id.

        Raises InvalidArgument, NotFound (service or replica), ResourceExhausted (too many).
        """
        _check(fault)
        _check_target(fault, snapshot)
        others = [f for f in self.all() if f.id != fault.id]
        path = _path(fault.service, snapshot)
        if len(others) >= MAX_FAULTS or sum(_path(f.service, snapshot) == path for f in others) >= SLOTS:
            raise ResourceExhausted(
                f"at most {SLOTS} faults on one service and {MAX_FAULTS} in all; clear some first",
                reason="TOO_MANY_FAULTS",
            )
        if not fault.id:
            fault = dataclasses.replace(fault, id=self._free_id())
        self._faults[fault.id] = (fault, now + fault.lasts_s)
        return fault.id

    def clear(self, ids: tuple[str, ...]) -> int:
        """Take faults out, all of them where none is named; returns how many there were."""
        chosen = [i for i in (ids or tuple(self._faults)) if i in self._faults]
        for fault_id in set(chosen):
            del self._faults[fault_id]
        return len(set(chosen))

    def expire(self, now: float) -> bool:
        """Take out the faults whose time is over; returns whether there were any."""
        over = [i for i, (_, end) in self._faults.items() if end <= now]
        for fault_id in over:
            del self._faults[fault_id]
        return bool(over)

    def next_end(self) -> float | None:
        """When the next fault ends."""
        return min((end for _, end in self._faults.values()), default=None)

    def _free_id(self) -> str:
        return next(name for n in self._numbers if (name := f"fault-{n}") not in self._faults)


def _path(service: str, snapshot: Snapshot) -> str:
    """The filters that a fault on this service takes one of: the edge's faults and the gateways' share theirs."""
    found = snapshot.service(service)
    return EDGE if found is not None and found.kind == EDGE_KIND else service


def _check(fault: Fault) -> None:
    if not 0 < fault.percent <= 100:
        raise InvalidArgument("must be above 0 and at most 100", field="fault.percent")
    if fault.abort_code not in _CODES:
        raise InvalidArgument("must be a gRPC code from 1 to 16, or 0 for no abort", field="fault.abort_code")
    if not 0 <= fault.delay_s <= _MAX_DELAY_S:
        raise InvalidArgument(f"must be from 0 to {_MAX_DELAY_S:.0f} s", field="fault.delay")
    if not fault.abort_code and not fault.delay_s:
        raise InvalidArgument("a fault aborts, delays, or both", field="fault")
    if not 0 < fault.lasts_s <= _MAX_S:
        raise InvalidArgument(f"must be above 0 and at most {_MAX_S:.0f} s", field="fault.lasts")
    for name in ("id", "tenant"):
        text = getattr(fault, name)
        if len(text) > 128 or not (text.isascii() and (text == "" or text.isprintable())):
            raise InvalidArgument("must be at most 128 printable ASCII characters", field=f"fault.{name}")


def _check_target(fault: Fault, snapshot: Snapshot) -> None:
    if fault.service == EDGE:
        if fault.replica:
            raise InvalidArgument("the edge has no replicas to choose from", field="fault.replica")
        return
    service = snapshot.service(fault.service)
    if service is None:
        raise NotFound(f"no service {fault.service!r}", field="fault.service", reason="SERVICE_NOT_FOUND")
    if not fault.replica:
        return
    if service.kind == EDGE_KIND:
        raise InvalidArgument(f"the edge calls {fault.service} as a group, name no replica", field="fault.replica")
    if all(r.id != fault.replica for r in service.replicas):
        raise NotFound(f"no replica {fault.replica!r}", field="fault.replica", reason="REPLICA_NOT_FOUND")
