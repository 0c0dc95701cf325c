"""What a request may still do: attempts, money, and retries out of what its model's requests share."""

from __future__ import annotations

from headrace.common.v1 import generation_pb2
from mesh.errors import Outcome
from mesh.resilience import RetryBudget, RetryPolicy, pauses
from router.core.attempt import ESCALATION, RESUME, Attempt, Cause
from router.core.catalog import Model
from router.core.fleet import Candidate


class AttemptLimits:
    """The limits of one request, the smaller of the caller's and the model's."""

    def __init__(
        self, shared: RetryBudget, policy: RetryPolicy, model: Model, budget: generation_pb2.Budget, tenant: str
    ) -> None:
        self._shared = shared
        self._tenant = tenant
        self.max_attempts = min(model.attempts, budget.attempts or model.attempts)
        self._cap = min((c for c in (model.cost_cap_micro_usd, budget.cost_micro_usd) if c), default=0)
        self._pauses = pauses(policy, self.max_attempts)
        self._free_resumes = 1

    def cost_left(self, spent: int) -> float | None:
        """What may still be spent, in millionths of a dollar; None where nothing limits it."""
        return self._cap - spent if self._cap else None

    def pause(self) -> float:
        """How long to wait before those who failed are asked again, in seconds."""
        return next(self._pauses, 0.0)

    def pay(self, cause: Cause, candidate: Candidate, now: float, *, first: bool) -> int | None:
        """Pay for asking the candidate: how much was taken from what is shared; None where it may not be asked."""
        if first:
            self._shared.on_request(self._tenant)
            return 0
        if cause == RESUME and self._free_resumes:
            # Such a stream has produced: one resume is earned, and while everything is down there are none.
            self._free_resumes -= 1
            return 0
        # An escalation is no retry: the answer before it came. And the budget is there to spare what is down: one that
        # has answered others just now is not.
        if cause == ESCALATION or candidate.endpoint.reliability.proven(now):
            return 0
        return self.pay_hedge()

    def pay_hedge(self) -> int | None:
        """Pay for a second attempt beside the first; see `pay`."""
        return 1 if self._shared.take(self._tenant) else None

    def answered(self, attempt: Attempt) -> None:
        """The attempt is being answered: what was taken for it goes back."""
        if attempt.paid and not attempt.repaid:
            attempt.repaid = True
            self._shared.repay(self._tenant)

    def failed(self, attempt: Attempt) -> None:
        """The attempt failed. Where it had begun to be answered, it has cost what it took after all."""
        if attempt.repaid:
            self._shared.take_back(self._tenant)

    def succeeded(self) -> None:
        """The request has its answer."""
        self._shared.on_outcome(Outcome.OK, self._tenant)
