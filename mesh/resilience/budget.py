"""How many calls may be tried again: a budget shared by all requests of a process, and the pauses between attempts.

Every process earns its retries from its own requests, so the bound holds for any number of processes together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, wait_random_exponential

from mesh.errors import Outcome


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The budget's size and the pauses. Seconds."""

    # What every request adds, whatever becomes of it: the bound on retries per request while everything fails.
    ratio: float = 0.1
    # What a request that succeeded adds besides.
    success_ratio: float = 0.5
    # In the budget at the start, so that a quiet mesh can retry at all.
    floor: float = 20.0
    # The most that can be saved up for a burst of failures.
    max_balance: float = 40.0
    # Attempts of one unary call, the first included.
    attempts: int = 3
    first_pause_s: float = 0.02
    max_pause_s: float = 1.0


class RetryBudget:
    """A token bucket: requests put in, retries take out.

    While nothing succeeds, n requests make at most n * (1 + ratio) + max_balance attempts: within 1.2 times from
    max_balance / (0.2 - ratio) requests on, which is 400 with the defaults.
    """

    __slots__ = ("_balance", "_policy", "refused", "requests", "retries")

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._balance = policy.floor
        self.requests = 0
        self.retries = 0
        self.refused = 0

    def use(self, policy: RetryPolicy) -> None:
        """Put another policy into force. What was saved up stays, as far as there is room for it."""
        self._policy = policy
        self._balance = min(policy.max_balance, self._balance)

    @property
    def balance(self) -> float:
        """Retries that could be made now."""
        return self._balance

    def on_request(self) -> None:
        """Count a request's first attempt."""
        self.requests += 1
        self._add(self._policy.ratio)

    def on_outcome(self, outcome: Outcome) -> None:
        """Count how an attempt ended."""
        if outcome is Outcome.OK:
            self._add(self._policy.success_ratio)

    def take(self) -> bool:
        """Whether one more attempt may be made; it is paid for when so."""
        if self._balance < 1.0:
            self.refused += 1
            return False
        self._balance -= 1.0
        self.retries += 1
        return True

    def _add(self, amount: float) -> None:
        self._balance = min(self._policy.max_balance, self._balance + amount)


def pauses(policy: RetryPolicy, attempts: int | None = None) -> Iterator[float]:
    """Seconds to wait before the second, third, ... try (the policy's count, unless told): exponential, full jitter."""
    wait = wait_random_exponential(multiplier=policy.first_pause_s, max=policy.max_pause_s)
    state = RetryCallState(Retrying(), None, (), {})
    for number in range(1, attempts or policy.attempts):
        state.attempt_number = number
        yield float(wait(state))
