"""What became of one caller's question. Times are seconds since the load began."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Final

_NEVER: Final = -1.0


class RequestResult(enum.Enum):
    """How a question ended for its caller."""

    ANSWERED = "answered"
    # Answered, or begun, with words that an undisturbed run does not have there.
    WRONG = "wrong"
    # Begun, and never finished.
    SEVERED = "severed"
    # Never begun.
    LOST = "lost"


@dataclass
class RequestRecord:
    """One question, filled in as its answer comes."""

    prompt: int
    started: float
    bystander: bool = False
    text: str = ""
    first_at: float = _NEVER
    ended: float = _NEVER
    # The longest wait between two pieces.
    max_gap_s: float = 0.0
    finished: bool = False
    # The error as the caller was told it; empty where none was.
    error: str = ""
    status: int = 0
    client_retries: int = 0
    attempts: int = 1
    spliced: bool = False
    cost_usd: float = 0.0
    reasons: list[str] = field(default_factory=list)

    def gain(self, text: str, now: float) -> None:
        """A piece of the answer has come."""
        if self.first_at == _NEVER:
            self.first_at = now
        else:
            self.max_gap_s = max(self.max_gap_s, now - self._last)
        self._last = now
        self.text += text

    def disclose(self, disclosed: dict[str, Any]) -> None:
        """Take what the mesh says of how it answered."""
        attempts = disclosed.get("attempts") or []
        self.attempts = max(1, len(attempts))
        self.spliced = bool(disclosed.get("spliced"))
        self.cost_usd = float(disclosed.get("cost_usd") or 0.0)
        self.reasons = [str(attempt["reason"]) for attempt in attempts if attempt.get("reason")]

    def result(self, reference: str) -> RequestResult:
        """How it ended, held against the undisturbed answer."""
        if not (reference.startswith(self.text) and (not self.finished or self.text == reference)):
            return RequestResult.WRONG
        if self.finished:
            return RequestResult.ANSWERED
        return RequestResult.SEVERED if self.text else RequestResult.LOST

    @property
    def silent(self) -> bool:
        """Ended without a finish and without a word about it."""
        return not self.finished and not self.error

    @property
    def seconds(self) -> float:
        """From the question to the end of its answer."""
        return self.ended - self.started

    _last: float = 0.0
