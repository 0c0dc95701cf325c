"""Who may enter at all: a bound on what is in the house, and a guess at when there will be room."""

from __future__ import annotations

from collections import deque

from inference.core.port import EngineOverloaded

# Completions that the drain rate is measured over, and what is said while there were none.
WINDOW = 32
DEFAULT_RETRY_AFTER_S = 1.0
MIN_RETRY_AFTER_S, MAX_RETRY_AFTER_S = 0.05, 60.0
# Completions from which on a request is refused for what they say.
MEASURED = 8
# A tenant's waiting choices may take up to this many times the room that is left: one tenant alone fills seven
# eighths of the queue, and whoever comes next still finds room (Choudhury and Hahne, "Dynamic queue length
# thresholds", 1998).
GREED = 7


class AdmissionQueue:
    """Counts choices in the house, running or waiting. Used on the event loop only."""

    def __init__(self, max_running: int, max_queued: int) -> None:
        self._max_running = max_running
        self._max_queued = max_queued
        self._tenants: dict[str, int] = {}
        self._inside = 0
        # When choices ended, by a clock that stands still while the house is empty.
        self._ended: deque[float] = deque(maxlen=WINDOW)
        self._busy_s = 0.0
        self._looked_at: float | None = None

    @property
    def inside(self) -> int:
        """Choices that were admitted and have not left."""
        return self._inside

    def enter(self, tenant: str, choices: int, now: float, deadline: float | None = None) -> None:
        """Admit `choices` of `tenant`, or raise EngineOverloaded and admit none.

        Refused is also what would, as fast as choices ended of late, not begin before its `deadline`.
        """
        self._look(now)
        waiting = max(0, self._inside - self._max_running)
        left = self._max_running + self._max_queued - self._inside
        own = self._tenants.get(tenant, 0)
        if choices > left:
            raise EngineOverloaded(
                f"the queue holds {waiting} of at most {self._max_queued} waiting generations",
                self.retry_after(choices - left, now),
            )
        if waiting and own + choices - self._max_running > GREED * left:
            raise EngineOverloaded(
                f"tenant {tenant!r} has {own} generations in the queue, and the rest is kept for others",
                self.retry_after(choices, now),
            )
        begins_s = self.begins_in(tenant, choices)
        if deadline is not None and begins_s > deadline - now:
            late_s = begins_s - (deadline - now)
            raise EngineOverloaded(
                f"it would begin in about {begins_s:.0f} s, after its deadline; {waiting} generations wait before it",
                min(MAX_RETRY_AFTER_S, max(MIN_RETRY_AFTER_S, late_s)),
            )
        self._tenants[tenant] = own + choices
        self._inside += choices

    def leave(self, tenant: str, choices: int, now: float) -> None:
        """Book that admitted choices have ended, however they did."""
        self._look(now)
        self._inside -= choices
        self._ended.extend([self._busy_s] * min(choices, WINDOW))
        left = self._tenants[tenant] - choices
        if left:
            self._tenants[tenant] = left
        else:
            del self._tenants[tenant]

    def begins_in(self, tenant: str, choices: int) -> float:
        """Seconds until so many more of `tenant` would begin; 0 where nobody knows, or nothing waits.

        Tenants take turns, so that only as many of the others go first as this one has waiting itself.
        """
        waiting = self._inside + choices - self._max_running
        if waiting <= 0 or len(self._ended) < MEASURED:
            return 0.0
        tenants = len(self._tenants.keys() | {tenant})
        own = self._tenants.get(tenant, 0) + choices
        return min(waiting, own * tenants) * self._per_choice_s()

    def retry_after(self, choices: int, now: float) -> float:
        """Seconds until `choices` more have probably left, from the rate at which they did of late."""
        self._look(now)
        if len(self._ended) < 2:
            return DEFAULT_RETRY_AFTER_S
        return min(MAX_RETRY_AFTER_S, max(MIN_RETRY_AFTER_S, choices * self._per_choice_s()))

    def _per_choice_s(self) -> float:
        return (self._busy_s - self._ended[0]) / len(self._ended)

    def _look(self, now: float) -> None:
        if self._inside and self._looked_at is not None:
            self._busy_s += now - self._looked_at
        self._looked_at = now
