"""Who is asked next for one request, after what has failed so far; and when nobody is left."""

from __future__ import annotations

from typing import Final

from mesh.clock import Clock
from mesh.errors import DeadlineExceeded, MeshError, Outcome, Unavailable
from router.core.attempt import RESUME, Attempt
from router.core.attempt_limits import AttemptLimits
from router.core.fleet import Candidate
from router.core.refusals import moves_on, passes
from router.core.routed_request import Opening, RoutedRequest
from router.core.selector import BeingProbed, NobodyLeft, Selected, SelectionRequest, Selector

# How long a request waits for another's probe of the only candidates there are, and how often it looks.
_MAX_PROBE_WAIT_S: Final = 5.0
_PROBE_LOOK_S: Final = 0.05


class Choosing:
    """What one request has learned of its candidates."""

    def __init__(self, selector: Selector, clock: Clock, request: RoutedRequest, limits: AttemptLimits) -> None:
        self._selector = selector
        self._clock = clock
        self._request = request
        self._limits = limits
        # Candidates that failed, by key; deployments that cannot do what is asked, by name.
        self._tried: set[str] = set()
        self._refused: set[str] = set()
        self._last: MeshError | None = None
        # Who failed last of what may have passed, and who was asked once more because of that.
        self._passing: Candidate | None = None
        self._once_more: set[str] = set()
        self._waited = False

    @property
    def refused_last(self) -> bool:
        """Whether the last attempt was a refusal of what the deployment cannot do: going on from there is no retry."""
        return self._last is not None and moves_on(self._last)

    def exclude(self, candidate: Candidate) -> None:
        """Do not ask a candidate again, unless everybody has been asked."""
        self._tried.add(candidate.key)

    def failed(self, attempt: Attempt, error: MeshError) -> None:
        """Take in how an attempt failed."""
        self._tried.add(attempt.candidate.key)
        self._last = error
        # What was right in a request when it was first asked is right: who refuses to go on cannot.
        if moves_on(error) or (attempt.cause == RESUME and error.outcome is Outcome.CALLER_FAULT):
            self._refused.add(attempt.candidate.deployment.name)
        self._passing = attempt.candidate if passes(error) and attempt.first_s is None else None

    async def next(self, opening: Opening, made: int, budget: float | None) -> Selected:
        """Whom to ask after so many attempts. Waits where that helps; raises the error to end the request with."""
        deadline = self._request.deadline
        if deadline.passed():
            raise DeadlineExceeded("the request's time is over")
        if made >= self._limits.max_attempts:
            raise self.given_up(f"{self._limits.max_attempts} attempts were made", "attempts")
        choice = self._cheaper(await self._select_or_wait(opening, budget), opening, budget)
        if isinstance(choice, MeshError) and self._tried and opening.again:
            # Everybody has been tried once; whoever may be asked again is, after a pause.
            self._tried.clear()
            await self._clock.sleep(deadline.cap(self._limits.pause()))
            choice = self.select(opening, budget)
        wait = self._worth_waiting(choice, opening)
        if wait is not None:
            self._waited = True
            self._request.trace.note("wait", f"{wait:.2f} s: everybody asked to be left alone for so long")
            await self._clock.sleep(wait)
            self._tried.clear()
            choice = self.select(opening, budget)
        if isinstance(choice, MeshError):
            raise self._final(choice)
        return choice

    async def _select_or_wait(self, opening: Opening, budget: float | None) -> Selected | MeshError:
        """Whom to ask; where all that are left are being probed, wait a while for what the probe shows."""
        deadline = self._request.deadline
        until = self._clock.monotonic() + deadline.cap(_MAX_PROBE_WAIT_S)
        choice = self.select(opening, budget)
        while isinstance(choice, BeingProbed) and self._clock.monotonic() < until and not deadline.passed():
            await self._clock.sleep(_PROBE_LOOK_S)
            choice = self.select(opening, budget)
        return choice

    def _cheaper(self, choice: Selected | MeshError, opening: Opening, budget: float | None) -> Selected | MeshError:
        """Once more the one whose trouble may have passed, before one that costs more is asked instead."""
        failed, self._passing = self._passing, None
        if failed is None or isinstance(choice, MeshError) or failed.key in self._once_more:
            return choice
        if choice.candidate.price <= failed.price:
            return choice
        self._once_more.add(failed.key)
        self._tried.discard(failed.key)
        again = self.select(opening, budget)
        return choice if isinstance(again, MeshError) else again

    def _worth_waiting(self, choice: Selected | MeshError, opening: Opening) -> float | None:
        """How long to wait where all that could answer asked to be left alone for a little; None: not at all."""
        if isinstance(choice, Selected) or choice.outcome is not Outcome.BACKPRESSURE:
            return None
        if choice.retry_after_s is None or self._waited or not opening.again or opening.resumption is not None:
            return None
        wait = choice.retry_after_s + self._limits.pause()
        allowed = min(self._request.route.model.max_wait_s, self._request.deadline.left() / 2)
        return wait if wait <= allowed else None

    def _final(self, error: MeshError) -> MeshError:
        """What the request ends with when nobody is left to be chosen."""
        last = self._last
        if last is None or (error.outcome is not Outcome.FAULT and not isinstance(error, NobodyLeft)):
            return error
        if isinstance(error, NobodyLeft) and moves_on(last):
            return last
        given_up = self.given_up(error.message, "candidates")
        given_up.__cause__ = error
        return given_up

    def select(self, opening: Opening, budget: float | None) -> Selected | MeshError:
        """The best of those that may be asked now, or the error that says why there is none."""
        request = self._request
        selection = SelectionRequest(
            request.profile,
            request.route,
            request.scorers,
            tried=frozenset(self._tried),
            refused=frozenset(self._refused),
            first_group=opening.first_group,
            budget=budget,
            only=opening.resumption.suits if opening.resumption else None,
        )
        return self._selector.choose(selection, self._clock.monotonic(), request.trace)

    def given_up(self, why: str, limit: str) -> MeshError:
        """The error for a request that nothing more is tried for; `limit` names what ended it."""
        last = self._last
        if last is not None and (last.outcome is Outcome.BACKPRESSURE or moves_on(last)):
            return last
        return Unavailable(
            f"no deployment answered: {why}" + (f"; the last one: {last.message}" if last else ""),
            reason="NO_HEALTHY_DEPLOYMENT",
            metadata={"limit": limit, "last_reason": last.reason if last else ""},
        )
