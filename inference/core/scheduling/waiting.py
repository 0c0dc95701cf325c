"""The order in which waiting sequences are started.

Strictly by priority; within a priority the tenant that has been served least goes next, after the virtual token
counter of "Fairness in Serving Large Language Models" (Sheng et al., OSDI 2024); within a tenant, first come first
served. A tenant that comes back from idleness starts at the least served active tenant's count, so that nobody saves
up a claim.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from inference.core.scheduling.sequence import Sequence

# A generated token costs a step where a prompt token shares one; the paper's weights.
PROMPT_WEIGHT = 1
ANSWER_WEIGHT = 2
# Counters of tenants that are not waiting are kept up to this many, the latest served ones.
KEPT_TENANTS = 4096


class WaitingQueue:
    """Not bounded here: admission is."""

    def __init__(self) -> None:
        self._queues: dict[int, dict[str, deque[Sequence]]] = {}
        self._served: OrderedDict[str, int] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Sequence]:
        for tenants in self._queues.values():
            for queue in tenants.values():
                yield from queue

    def push(self, seq: Sequence) -> None:
        """Add a newcomer behind its tenant's others."""
        self._queue(seq).append(seq)
        self._size += 1

    def push_back(self, seq: Sequence) -> None:
        """Put a sequence that was started before the others of its tenant, by arrival."""
        queue = self._queue(seq)
        place = next((i for i, other in enumerate(queue) if other.arrival > seq.arrival), len(queue))
        queue.insert(place, seq)
        self._size += 1

    def peek(self) -> Sequence | None:
        """Who is to be started next."""
        if not self._size:
            return None
        tenants = self._queues[max(self._queues)]
        tenant = min(tenants, key=lambda name: (self._served[name], tenants[name][0].arrival))
        return tenants[tenant][0]

    def remove(self, seq: Sequence) -> None:
        """Take `seq` out. Raises ValueError or KeyError when it does not wait."""
        tenants = self._queues[seq.priority]
        queue = tenants[seq.tenant]
        queue.remove(seq)
        self._size -= 1
        if not queue:
            del tenants[seq.tenant]
            if not tenants:
                del self._queues[seq.priority]

    def charge(self, tenant: str, cost: int) -> None:
        """Book service, in weighted tokens, on a tenant."""
        self._served[tenant] = self._served.get(tenant, 0) + cost
        self._served.move_to_end(tenant)
        if len(self._served) > KEPT_TENANTS + self._size:
            waiting = {name for tenants in self._queues.values() for name in tenants}
            for name in [name for name in self._served if name not in waiting][: len(self._served) - KEPT_TENANTS]:
                del self._served[name]

    def _queue(self, seq: Sequence) -> deque[Sequence]:
        active = {name for tenants in self._queues.values() for name in tenants}
        if seq.tenant not in active:
            floor = min((self._served[name] for name in active), default=0)
            self._served[seq.tenant] = max(self._served.get(seq.tenant, 0), floor)
        return self._queues.setdefault(seq.priority, {}).setdefault(seq.tenant, deque())
