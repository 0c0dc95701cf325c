"""The verdict on one replica."""

from __future__ import annotations

from collections.abc import Callable

from mesh.control.core.model import Health, HealthVerdict


class HealthState:
    """Joins what the stream and the checks say of one replica into a verdict, and reports its changes."""

    def __init__(self, report: Callable[[HealthVerdict], None]) -> None:
        self._report = report
        self._verdict: HealthVerdict | None = None
        self._told: bool | None = None
        self._answered = False
        self._silence = ""
        self._was_healthy = False

    def told(self, *, serving: bool) -> None:
        """The stream brought a status; it stands until the next one or the stream's end."""
        self._told = serving
        self._silence = ""
        self._decide()

    def answered(self, *, serving: bool) -> None:
        """A check was answered."""
        self._answered = serving
        self._silence = ""
        self._decide()

    def lost(self) -> None:
        """The stream broke: the process died, or its connection. The next check tells which."""
        self._told = None
        self._was_healthy = False
        self.silent("connection lost")

    def silent(self, why: str) -> None:
        """A check was not answered."""
        self._silence = why
        self._decide()

    def _decide(self) -> None:
        # The stream is in order; a check's answer may be older than what the stream said since.
        serving = self._answered if self._told is None else self._told
        if self._silence:
            verdict = HealthVerdict(Health.UNHEALTHY, self._silence)
        elif serving:
            self._was_healthy = True
            verdict = HealthVerdict(Health.HEALTHY)
        elif self._was_healthy:
            verdict = HealthVerdict(Health.DRAINING, "takes no new work")
        else:
            verdict = HealthVerdict(Health.UNKNOWN, "not ready yet")
        if verdict != self._verdict:
            self._verdict = verdict
            self._report(verdict)
