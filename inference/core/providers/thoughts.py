"""Thoughts before an answer, which are not passed on: whoever waits for its first token learns that the model works."""

from __future__ import annotations

from typing import Final

# As the contract says: at most twice a second.
_EVERY_S: Final = 0.5


class Thoughts:
    """Of one answer. `over` is set once the answer has begun."""

    def __init__(self) -> None:
        self.over = False
        self._seen = 0
        self._told_at = float("-inf")

    def tell(self, progress: int, now: float) -> bool:
        """Whether to say now that the model is at work; `progress` grows with every sign of it. Seconds, monotonic."""
        if self.over or progress <= self._seen or now - self._told_at < _EVERY_S:
            return False
        self._seen, self._told_at = progress, now
        return True
