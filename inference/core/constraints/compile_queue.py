"""Whose turn it is: jobs of several tenants for one worker that cannot be interrupted."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from inference.core.port import EngineOverloaded

Job = TypeVar("Job")

# What a tenant may have waiting: a worker takes a second or two for the costliest, and it is the tenant who waits.
MAX_WAITING = 64
_RETRY_AFTER_S = 2.0


class CompileQueue(Generic[Job]):
    """Tenants take turns, one job each; a tenant's own jobs come in the order in which they were asked for."""

    def __init__(self) -> None:
        # In the order of their turns; none is empty.
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        self._last = ""

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, tenant: str, job: Job) -> None:
        """Raises EngineOverloaded when as many of the tenant's wait as may."""
        jobs = self._waiting.get(tenant)
        if jobs is None:
            jobs = self._waiting[tenant] = deque()
        if len(jobs) >= MAX_WAITING:
            message = f"{MAX_WAITING} new grammars of this tenant are waiting to be compiled"
            raise EngineOverloaded(message, _RETRY_AFTER_S)
        jobs.append(job)

    def take(self) -> Job | None:
        """The next job, of another tenant than the last one's if any waits; None when nothing does."""
        if not self._waiting:
            return None
        self._last = tenant = next((t for t in self._waiting if t != self._last), self._last)
        jobs = self._waiting.pop(tenant)
        job = jobs.popleft()
        if jobs:
            self._waiting[tenant] = jobs
        return job

    def drop(self, tenant: str, job: Job) -> bool:
        """Forget a job; False when it does not wait."""
        jobs = self._waiting.get(tenant, deque())
        if job not in jobs:
            return False
        jobs.remove(job)
        if not jobs:
            del self._waiting[tenant]
        return True

    def clear(self) -> list[Job]:
        """Forget all; they are given out."""
        jobs = [job for waiting in self._waiting.values() for job in waiting]
        self._waiting.clear()
        return jobs
