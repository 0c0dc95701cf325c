"""The order in which waiting sequences are started.

Strictly by priority; within a priority the tenant that has been served least goes next, as in "Fairness in Serving
Large Language Models" (Sheng et al., OSDI 2024), in estimated seconds; within a tenant, first come first served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from inference.core.scheduling.sequence import Sequence
from inference.core.scheduling.shares import TenantShares


class WaitingQueue:
    """Not bounded here: admission is. Tenants of what is pushed have entered `shares`."""

    def __init__(self, shares: TenantShares) -> None:
        self._shares = shares
        self._queues: dict[int, dict[str, deque[Sequence]]] = {}
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

    def candidates(self, small: Callable[[Sequence], bool]) -> Iterator[Sequence]:
        """Who may be started next, the most deserving first: each tenant's first, and its first small one behind it.

        The queue must not change meanwhile.
        """
        for priority in sorted(self._queues, reverse=True):
            tenants = self._queues[priority]
            for tenant in sorted(tenants, key=lambda name: (self._shares.of(name), tenants[name][0].arrival)):
                queue = tenants[tenant]
                yield queue[0]
                if not small(queue[0]) and (first := next(filter(small, queue), None)) is not None:
                    yield first

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

    def _queue(self, seq: Sequence) -> deque[Sequence]:
        return self._queues.setdefault(seq.priority, {}).setdefault(seq.tenant, deque())
