"""How many calls may be tried again: a budget that requests share, and the pauses between attempts.

Every process earns its retries from its own requests, so the bound holds for any number of processes together. What is
shared by all callers of one thing (a model, a peer service) is a budget of its own, so that what is down for one drains
no other's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tenacity import RetryCallState, Retrying, wait_random_exponential

from mesh.errors import Outcome

# Tenants whose debts are remembered, and names that have a budget.
_MAX_TENANTS: Final = 1024
_MAX_BUDGETS: Final = 1024


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The budget's size and the pauses. Seconds."""

    # What every request adds, whatever becomes of it: the bound on retries per request while everything fails.
    ratio: float = 0.1
    # What a request that succeeded adds besides.
    success_ratio: float = 0.5
    # In the budget at the start, so that a quiet mesh can retry at all.
    floor: float = 40.0
    # The most that can be saved up for a burst of failures.
    max_balance: float = 40.0
    # Attempts of one unary call, the first included.
    attempts: int = 3
    first_pause_s: float = 0.02
    max_pause_s: float = 1.0


class RetryBudget:
    """A token bucket: requests put in, retries take out, and a retry that is answered puts back what it took.

    While nothing succeeds, n requests make at most n * (1 + ratio) + max_balance attempts: within 1.2 times from
    max_balance / (0.2 - ratio) requests on, which is 400 with the defaults; breakers stop far sooner. While something
    answers, retries cost nothing in the end, so no pattern of failures elsewhere uses the budget up.

    `tenant` says on whose behalf: once several ask, none may owe more than what is left for the others, so that one
    whose requests always fail leaves half.
    """

    __slots__ = ("_balance", "_owed", "_policy", "refused", "requests", "retries")

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._balance = policy.floor
        # By tenant: retries taken that were neither answered nor earned since.
        self._owed: dict[str, float] = {}
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

    def on_request(self, tenant: str = "") -> None:
        """Count a request's first attempt."""
        self.requests += 1
        self._earn(tenant, self._policy.ratio)

    def on_outcome(self, outcome: Outcome, tenant: str = "") -> None:
        """Count how an attempt ended."""
        if outcome is Outcome.OK:
            self._earn(tenant, self._policy.success_ratio)

    def take(self, tenant: str = "") -> bool:
        """Whether one more attempt may be made; it is paid for when so."""
        owed = self._owed.get(tenant, 0.0)
        if self._balance < 1.0 or (len(self._owed) > 1 and owed >= self._balance):
            self.refused += 1
            return False
        self.retries += 1
        self._charge(tenant)
        return True

    def repay(self, tenant: str = "") -> None:
        """A retry is being answered: put back what it took."""
        self._earn(tenant, 1.0)

    def take_back(self, tenant: str = "") -> None:
        """A retry that was being answered failed after all: it has cost what it took."""
        self._charge(tenant)

    def _charge(self, tenant: str) -> None:
        self._balance = max(0.0, self._balance - 1.0)
        self._owed[tenant] = self._owed.get(tenant, 0.0) + 1.0

    def _earn(self, tenant: str, amount: float) -> None:
        self._balance = min(self._policy.max_balance, self._balance + amount)
        # Whoever asked last stands last; those who have not asked for longest are forgotten first.
        self._owed[tenant] = max(0.0, self._owed.pop(tenant, 0.0) - amount)
        while len(self._owed) > _MAX_TENANTS:
            del self._owed[next(iter(self._owed))]


class RetryBudgets:
    """A budget for each name, made on first use; the one that was used longest ago is forgotten above the bound."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self._budgets: dict[str, RetryBudget] = {}

    def of(self, name: str) -> RetryBudget:
        """The budget of that name."""
        budget = self._budgets.pop(name, None) or RetryBudget(self.policy)
        self._budgets[name] = budget
        while len(self._budgets) > _MAX_BUDGETS:
            del self._budgets[next(iter(self._budgets))]
        return budget

    def use(self, policy: RetryPolicy) -> None:
        """Put another policy into force, for budgets there are and to come."""
        self.policy = policy
        for budget in self._budgets.values():
            budget.use(policy)


def pauses(policy: RetryPolicy, attempts: int | None = None) -> Iterator[float]:
    """Seconds to wait before the second, third, ... try (the policy's count, unless told): exponential, full jitter."""
    wait = wait_random_exponential(multiplier=policy.first_pause_s, max=policy.max_pause_s)
    state = RetryCallState(Retrying(), None, (), {})
    for number in range(1, attempts or policy.attempts):
        state.attempt_number = number
        yield float(wait(state))
