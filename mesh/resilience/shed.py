"""Refusing work early: at most so many requests are under way, the rest are told at once to come back."""

from __future__ import annotations

from types import TracebackType

from mesh.errors import ResourceExhausted


class LoadShed:
    """A bound on requests under way. `with shed.enter():` around each."""

    __slots__ = ("_maximum", "_retry_after_s", "inflight")

    def __init__(self, maximum: int, retry_after_s: float = 1.0) -> None:
        self._maximum = maximum
        self._retry_after_s = retry_after_s
        self.inflight = 0

    def enter(self) -> LoadShed:
        """Take a place until the `with` block ends. Raises ResourceExhausted (OVERLOADED) when all are taken."""
        if self.inflight >= self._maximum:
            raise ResourceExhausted(
                f"{self._maximum} requests are under way; come back later",
                reason="OVERLOADED",
                retry_after_s=self._retry_after_s,
            )
        self.inflight += 1
        return self

    def __enter__(self) -> LoadShed:
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.inflight -= 1
