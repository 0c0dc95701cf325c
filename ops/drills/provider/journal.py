"""The calls that the provider received, so that a drill can tell whether it was really asked."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any, Final

_KEPT: Final = 5000


@dataclass
class Call:
    """One call. `outcome` is "running", then "finished", "faulted" or "cancelled"."""

    id: int
    model: str
    stream: bool
    request_id: str
    fault: str
    # Seconds since the provider started.
    at: float
    chunks: int = 0
    outcome: str = "running"


class Journal:
    """The newest calls in full, and counts of all."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._calls: deque[Call] = deque(maxlen=_KEPT)
        self.total = 0
        self._tokens = 0
        self._outcomes: Counter[str] = Counter()
        self._models: Counter[str] = Counter()

    def open(self, *, model: str, stream: bool, request_id: str, fault: str, at: float) -> Call:
        """Note a call that has come in."""
        call = Call(next(self._ids), model, stream, request_id, fault, at)
        self._calls.append(call)
        self.total += 1
        self._models[model] += 1
        return call

    def close(self, call: Call, outcome: str) -> None:
        """Note how a call ended; the first ending counts."""
        if call.outcome == "running":
            call.outcome = outcome
            self._outcomes[outcome] += 1
            self._tokens += call.chunks

    def report(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {
            "calls": self.total,
            "tokens": self._tokens,
            "outcomes": dict(self._outcomes),
            "models": dict(self._models),
            "journal": [asdict(call) for call in self._calls],
        }
