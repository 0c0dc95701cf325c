"""Who may enter at all: a bound on what is in the house, and a guess at when there will be room."""

from __future__ import annotations

from collections import deque

from inference.core.port import EngineOverloaded

# Completions that the drain rate is measured over, and what is said while there were none.
WINDOW = 32
DEFAULT_RETRY_AFTER_S = 1.0
MAX_RETRY_AFTER_S = 60.0
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
        self._ended: deque[float] = deque(maxlen=WINDOW)

    @property
    def inside(self) -> int:
        """Choices that were admitted and have not left."""
        return self._inside

    def enter(self, tenant: str, choices: int, now: float) -> None:
        """Admit `choices` of `tenant`, or raise EngineOverloaded and change nothing."""
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
        self._tenants[tenant] = own + choices
        self._inside += choices

    def leave(self, tenant: str, choices: int, now: float) -> None:
        """Book that admitted choices have ended, however they did."""
        self._inside -= choices
        self._ended.extend([now] * min(choices, WINDOW))
        left = self._tenants[tenant] - choices
        if left:
            self._tenants[tenant] = left
        else:
            del self._tenants[tenant]

    def retry_after(self, choices: int, now: float) -> float:
        """Seconds until `choices` more have probably left, from the rate at which they did of late."""
        if len(self._ended) < 2:
            return DEFAULT_RETRY_AFTER_S
        per_choice = (now - self._ended[0]) / len(self._ended)
        return min(MAX_RETRY_AFTER_S, max(0.05, choices * per_choice))
