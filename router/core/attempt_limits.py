"""What a request may still do: attempts, money, and retries out of what everybody shares."""

from __future__ import annotations

from headrace.common.v1 import generation_pb2
from mesh.resilience import ResilienceStack, pauses
from router.core.attempt import ESCALATION, RESUME, Cause
from router.core.catalog import Model


class AttemptLimits:
    """The limits of one request, the smaller of the caller's and the model's."""

    def __init__(self, stack: ResilienceStack, model: Model, budget: generation_pb2.Budget) -> None:
        self._shared = stack.budget
        self.max_attempts = min(model.attempts, budget.attempts or model.attempts)
        self._cap = min((c for c in (model.cost_cap_micro_usd, budget.cost_micro_usd) if c), default=0)
        self._pauses = pauses(stack.retry, self.max_attempts)
        self._free_resumes = 1

    def cost_left(self, spent: int) -> float | None:
        """What may still be spent, in millionths of a dollar; None where nothing limits it."""
        return self._cap - spent if self._cap else None

    def pause(self) -> float:
        """How long to wait before those who failed are asked again, in seconds."""
        return next(self._pauses, 0.0)

    def pay(self, cause: Cause, *, first: bool) -> bool:
        """Whether an attempt may be made; it is paid for when so."""
        if first:
            self._shared.on_request()
            return True
        if cause == RESUME and self._free_resumes:
            # Such a stream has produced: one resume is earned, and while everything is down there are none.
            self._free_resumes -= 1
            return True
        # An escalation is no retry: the answer before it came.
        return cause == ESCALATION or self._shared.take()

    def pay_hedge(self) -> bool:
        """Whether a second attempt may be made beside the first; it is paid for when so."""
        return self._shared.take()
