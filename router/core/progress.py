"""Whether an attempt still moves: one limit for each kind of silence, and a floor for its speed. Seconds, monotonic."""

from __future__ import annotations

from collections import deque

from router.core.catalog import Timers

CONNECT = "CONNECT_TIMEOUT"
HEADERS = "HEADERS_TIMEOUT"
FIRST_TOKEN = "FIRST_TOKEN_TIMEOUT"  # noqa: S105 - the name of a timer
GAP = "GAP_TIMEOUT"
FLOOR = "THROUGHPUT_FLOOR"


class Progress:
    """The state of one attempt's timers. `note` is called for every message, the rest only when a timer runs out."""

    __slots__ = (
        *("_arrivals", "_connected", "_headers", "_need", "_soonest", "_timers", "_waits_since"),
        *("first_at", "last_at", "started_at"),
    )

    def __init__(self, timers: Timers, now: float) -> None:
        self._timers = timers
        self.started_at = now
        # When the node last said that it had not begun yet.
        self._waits_since = now
        # 0.0 before the first message that carries something.
        self.first_at = 0.0
        self.last_at = 0.0
        self._connected = False
        self._headers = False
        # Tokens that every window must hold, and the arrivals within the last one.
        self._need = timers.floor_tokens_per_s * timers.floor_window_s
        self._arrivals: deque[tuple[float, int]] = deque()
        # How soon after the first message a timer may run out.
        self._soonest = min(timers.gap_s, timers.floor_window_s) if self._need else timers.gap_s

    def note(self, now: float, tokens: int) -> None:
        """A message with so many tokens has come."""
        if not self.first_at:
            self.first_at = now
        self.last_at = now
        if self._need:
            self._arrivals.append((now, tokens))

    def waits(self, now: float) -> None:
        """The node says that it waits or reads: the time to the first token counts anew."""
        if self.first_at:
            return
        self._connected = self._headers = True
        self.last_at = self._waits_since = now

    def reached(self, *, connected: bool, headers: bool) -> None:
        """What could be seen of the connection when a timer ran out."""
        self._connected = self._connected or connected or headers
        self._headers = self._headers or headers

    def due(self) -> tuple[float, str]:
        """When the next timer runs out if nothing comes before, and which one it is."""
        if not self.first_at:
            return self._due_before_first()
        gap = self.last_at + self._timers.gap_s
        floor = self._floor_due()
        return (gap, GAP) if gap <= floor else (floor, FLOOR)

    def look_at(self, now: float) -> float:
        """When to ask again what is due. Messages may come until then, and none of their timers is looked at late."""
        due, _ = self.due()
        return due if self.first_at else min(due, now + self._soonest)

    def _due_before_first(self) -> tuple[float, str]:
        timers = self._timers
        limits = [(timers.first_token_s, FIRST_TOKEN)]
        if not self._headers:
            limits.append((timers.headers_s, HEADERS))
        if not self._connected:
            limits.append((timers.connect_s, CONNECT))
        seconds, reason = min(limits)
        return self._waits_since + seconds, reason

    def _floor_due(self) -> float:
        """When the last window will hold too few tokens, if none come any more."""
        if not self._need:
            return float("inf")
        window = self._timers.floor_window_s
        while self._arrivals and self._arrivals[0][0] <= self.last_at - window:
            self._arrivals.popleft()
        held = sum(tokens for _, tokens in self._arrivals)
        for at, tokens in self._arrivals:
            if held < self._need:
                return max(at, self.first_at + window)
            held -= tokens
            if held < self._need:
                return at + window
        return self.first_at + window
