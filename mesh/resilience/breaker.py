"""A circuit breaker for calls that await: pybreaker's state machine, fed with verdicts instead of functions.

pybreaker cannot be put around an `async def`: it would record success before the body ran, `call_async` is Tornado's,
a cancellation is a BaseException and would count, and half-open lets every caller through until the first one has
ended. So nothing runs inside it. A caller takes a `Permit`, makes its call, and hands in how it ended; only then is
pybreaker told, by a function that returns or raises at once. The time spent open is ours as well: pybreaker measures
it on the wall clock, which may jump.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import pybreaker

from mesh.clock import SYSTEM, Clock
from mesh.errors import Outcome, Unavailable

# pybreaker half-opens by itself after its own timeout; ours decides, so that one must never come.
_NEVER_S = 10.0 * 365 * 86_400


class BreakerState(enum.IntEnum):
    """Where a breaker stands. The numbers are those of the contract's enum."""

    CLOSED = 1
    OPEN = 2
    HALF_OPEN = 3


_SEVERITY = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When to open, and for how long. Seconds."""

    # Faults in a row that open the breaker.
    failures: int = 5
    # How long it stays open before the first probe; doubles with each failed probe.
    reset_s: float = 1.0
    max_reset_s: float = 3.0
    # A probe without a verdict after this long no longer keeps others from probing.
    probe_lease_s: float = 30.0


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """What one process holds of a target, for others to take over.

    The larger `version` wins everywhere; of two changes that were made at once, the worse position.
    """

    state: BreakerState
    version: int
    # Time left open; 0 unless OPEN.
    open_for_s: float = 0.0


class BreakerOpen(Unavailable):
    """The target is taken to be down; nothing was sent."""

    default_reason = "BREAKER_OPEN"


class _Fault(Exception):
    """Tells pybreaker that a call failed."""


class Permit:
    """Leave to make one call. Resolve it with the outcome; leaving the `with` block unresolved counts as nothing.

    A cancelled call therefore moves no breaker, and a probe that was cancelled makes room for the next.
    """

    __slots__ = ("_breaker", "_done", "probe")

    def __init__(self, breaker: Breaker, probe: bool) -> None:
        self._breaker: Breaker = breaker
        self._done = False
        self.probe = probe

    def resolve(self, outcome: Outcome) -> None:
        """Say how the call ended. Later words about the same call are ignored."""
        if not self._done:
            self._done = True
            self._breaker.settle(self, outcome)

    def answering(self) -> None:
        """Say that an answer has begun, all that a probe has to show. How the call ends counts as any other's."""
        if self.probe and not self._done:
            self.probe = False
            self._breaker.answering(self)

    def release(self) -> None:
        """Give the permit back without a verdict."""
        if not self._done:
            self._done = True
            self._breaker.settle(self, None)

    def __enter__(self) -> Permit:
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.release()


class Breaker:
    """The breaker of one target. Not thread-safe: one event loop.

    `blocked_until` (monotonic seconds) is when the next call may be admitted; a caller that chooses between targets
    can compare it without calling anything.
    """

    def __init__(
        self,
        name: str,
        policy: BreakerPolicy,
        clock: Clock = SYSTEM,
        on_change: Callable[[Breaker], None] | None = None,
    ) -> None:
        self.name = name
        self.policy = policy
        self.blocked_until = 0.0
        # When it last closed after having been open; 0.0 if it never was.
        self.recovered_at = 0.0
        self.version = 0
        self._clock = clock
        self._on_change = on_change
        self._inner = pybreaker.CircuitBreaker(
            fail_max=policy.failures, reset_timeout=_NEVER_S, name=name, throw_new_error_on_trip=False
        )
        self._probe: Permit | None = None
        # Closed because a probe was being answered, and no answer has come whole since: the next fault opens it again.
        self._on_trial = False
        self._reset_s = policy.reset_s
        self.state = BreakerState.CLOSED

    @property
    def in_a_row(self) -> int:
        """Faults since the last success; so many as the policy says open it."""
        return int(self._inner.fail_counter)

    def use(self, policy: BreakerPolicy) -> None:
        """Put another policy into force. Where the breaker stands, and until when, stays as it is."""
        self.policy = policy
        self._inner.fail_max = policy.failures
        self._reset_s = min(max(self._reset_s, policy.reset_s), policy.max_reset_s)
        if self.state is BreakerState.CLOSED:
            self._reset_s = policy.reset_s

    def admit(self) -> Permit:
        """A permit for one call. Half-open gives one at a time. Raises BreakerOpen, with the time to wait."""
        if self.state is BreakerState.CLOSED:
            return Permit(self, probe=False)
        now = self._clock.monotonic()
        if now < self.blocked_until:
            raise BreakerOpen(
                f"{self.name} failed repeatedly and is left alone for now", retry_after_s=self.blocked_until - now
            )
        self._probe = Permit(self, probe=True)
        self.blocked_until = now + self.policy.probe_lease_s
        self._inner.half_open()
        if self.state is BreakerState.OPEN:
            self._moved(BreakerState.HALF_OPEN)
        return self._probe

    def settle(self, permit: Permit, outcome: Outcome | None) -> None:
        """Take in how a permitted call ended; None: it was abandoned. Called by Permit."""
        if permit is self._probe:
            self._probe = None
            self._settle_probe(outcome)
        elif self.state is BreakerState.CLOSED and outcome is not None:
            # Verdicts of calls that began before the breaker opened say nothing about the time since.
            self._count(outcome)

    def answering(self, permit: Permit) -> None:
        """Take in that a probe is being answered. Called by Permit."""
        if permit is self._probe:
            self._probe = None
            self._close(self._clock.monotonic())
            self._moved(BreakerState.CLOSED)
            self._on_trial = True

    def snapshot(self) -> BreakerSnapshot:
        """What to tell other processes."""
        left = max(0.0, self.blocked_until - self._clock.monotonic()) if self.state is BreakerState.OPEN else 0.0
        return BreakerSnapshot(self.state, self.version, left)

    def adopt(self, snapshot: BreakerSnapshot) -> bool:
        """Take over another process's newer snapshot, or of two made at once the worse; returns whether it was.

        HALF_OPEN means that the other one is probing: this one waits for its verdict, at most for a probe's lease.
        """
        if (snapshot.version, _SEVERITY[snapshot.state]) <= (self.version, _SEVERITY[self.state]):
            return False
        now = self._clock.monotonic()
        self._probe = None
        if snapshot.state is BreakerState.CLOSED:
            self._reset_s = self.policy.reset_s
            self._close(now)
        else:
            if self.state is BreakerState.CLOSED:
                self._inner.open()
            lease = snapshot.state is BreakerState.HALF_OPEN
            self.blocked_until = now + (self.policy.probe_lease_s if lease else snapshot.open_for_s)
        self.state, self.version = snapshot.state, snapshot.version
        self._tell()
        return True

    def _count(self, outcome: Outcome) -> None:
        if outcome is Outcome.OK:
            self._on_trial = False
            self._reset_s = self.policy.reset_s
            self._inner.call(_succeed)
        elif outcome in (Outcome.FAULT, Outcome.MIDSTREAM_FAULT):
            self._fail_inner()
            if self._on_trial:
                self._inner.open()
                self._lengthen()
            if self._inner.current_state == pybreaker.STATE_OPEN:
                self._open()

    def _settle_probe(self, outcome: Outcome | None) -> None:
        now = self._clock.monotonic()
        if outcome is None:
            self.blocked_until = now
        elif outcome in (Outcome.FAULT, Outcome.MIDSTREAM_FAULT):
            self._fail_inner()
            self._lengthen()
            self._open()
        else:
            # Refusing and being busy are answers too: the target is there.
            self._reset_s = self.policy.reset_s
            self._close(now)
            self._moved(BreakerState.CLOSED)

    def _fail_inner(self) -> None:
        try:
            self._inner.call(_fail)
        except _Fault:
            return

    def _lengthen(self) -> None:
        self._reset_s = min(self._reset_s * 2, self.policy.max_reset_s)

    def _open(self) -> None:
        self._on_trial = False
        self.blocked_until = self._clock.monotonic() + self._reset_s
        self._moved(BreakerState.OPEN)

    def _close(self, now: float) -> None:
        self._inner.close()
        self.blocked_until = 0.0
        if self.state is not BreakerState.CLOSED:
            self.recovered_at = now

    def _moved(self, state: BreakerState) -> None:
        self.state = state
        self.version += 1
        self._tell()

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change(self)


def _succeed() -> None:
    return


def _fail() -> None:
    raise _Fault
