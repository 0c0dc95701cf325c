"""What a process knows of each target it calls: its breaker, how reliable it is, how long it asked to be left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mesh.clock import SYSTEM, Clock
from mesh.errors import MeshError, Outcome, ResourceExhausted
from mesh.resilience.breaker import Breaker, BreakerPolicy, Permit
from mesh.resilience.reliability import Reliability

# A target that says "later" without saying when, and the bounds within which it is believed.
_DEFAULT_RETRY_AFTER_S: Final = 1.0
_MIN_RETRY_AFTER_S: Final = 0.05
_MAX_RETRY_AFTER_S: Final = 60.0
# Targets that are gone are forgotten; what is left is far below this, unless names are made up without end.
_MAX_ENDPOINTS: Final = 10_000


class Busy(ResourceExhausted):
    """The target asked to be left alone for a while; nothing was sent."""

    default_reason = "TARGET_BUSY"


class Endpoint:
    """One target's breaker, reliability and back-pressure."""

    __slots__ = ("_clock", "breaker", "busy_until", "reliability")

    def __init__(self, breaker: Breaker, clock: Clock) -> None:
        self.breaker = breaker
        self.busy_until = 0.0
        self.reliability = Reliability()
        self._clock = clock

    def admit(self) -> Permit:
        """A permit for one call. Raises Busy or BreakerOpen, both with the time to wait."""
        left = self.busy_until - self._clock.monotonic()
        if left > 0:
            raise Busy(f"{self.breaker.name} asked to be left alone for now", retry_after_s=left)
        return self.breaker.admit()

    def wait_s(self) -> float:
        """How long until a call may be admitted; 0.0 where one may be now."""
        return max(0.0, max(self.busy_until, self.breaker.blocked_until) - self._clock.monotonic())

    def answering(self, permit: Permit) -> None:
        """Take in that the target has begun to answer a call: what was taken to be down no longer is."""
        permit.answering()
        self.reliability.answered(self._clock.monotonic())

    def settle(self, permit: Permit, error: MeshError | None) -> None:
        """Take in how a call ended: None is success."""
        if error is None:
            permit.resolve(Outcome.OK)
            self.reliability.add(False, self._clock.monotonic())
            return
        permit.resolve(error.outcome)
        if error.outcome is not Outcome.CALLER_FAULT:
            self.reliability.add(True, self._clock.monotonic())
        if error.outcome is Outcome.BACKPRESSURE or error.retry_after_s is not None:
            self.back_off(error.retry_after_s)

    def back_off(self, seconds: float | None) -> None:
        """Leave the target alone for so long; None where it did not say. Never shortens an earlier pause."""
        wanted = _DEFAULT_RETRY_AFTER_S if seconds is None else seconds
        bounded = min(max(wanted, _MIN_RETRY_AFTER_S), _MAX_RETRY_AFTER_S)
        self.busy_until = max(self.busy_until, self._clock.monotonic() + bounded)


class Endpoints:
    """The endpoints of all targets, by name."""

    def __init__(
        self, policy: BreakerPolicy, clock: Clock = SYSTEM, on_change: Callable[[Breaker], None] | None = None
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._on_change = on_change
        self._endpoints: dict[str, Endpoint] = {}

    def of(self, name: str) -> Endpoint:
        """The target's endpoint, made on first use."""
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            while len(self._endpoints) >= _MAX_ENDPOINTS:
                del self._endpoints[next(iter(self._endpoints))]
            endpoint = Endpoint(Breaker(name, self._policy, self._clock, self._on_change), self._clock)
            self._endpoints[name] = endpoint
        return endpoint

    def use(self, policy: BreakerPolicy) -> None:
        """Put another policy into force, for targets known and to come."""
        self._policy = policy
        for endpoint in self:
            endpoint.breaker.use(policy)

    def find(self, name: str) -> Endpoint | None:
        """The target's endpoint, if there is one."""
        return self._endpoints.get(name)

    def forget(self, name: str) -> None:
        """Drop a target that is gone."""
        self._endpoints.pop(name, None)

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(tuple(self._endpoints.values()))
