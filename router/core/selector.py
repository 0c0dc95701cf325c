"""Choosing a candidate: filters, then weighted scorers, then the pick; and saying why there is none."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from mesh.errors import FailedPrecondition, MeshError, ResourceExhausted, Unavailable
from mesh.resilience import BreakerState
from router.core.catalog import Ramp, Route
from router.core.decision_trace import DecisionTrace
from router.core.filters import FILTERS, KINDS, Filter, Moment, kind_of
from router.core.fleet import Candidate, Fleet
from router.core.request_profile import RequestProfile
from router.core.strategies import Weighted


class BeingProbed(Unavailable):
    """All that could be asked were down, and one of them is being asked again just now."""


class Selected(NamedTuple):
    """Who is asked, from which of the chain's groups, and who is due for a probe besides."""

    candidate: Candidate
    group: int
    probe: Candidate | None


@dataclass(frozen=True, slots=True)
class SelectionRequest:
    """What one choice has to respect."""

    profile: RequestProfile
    route: Route
    scorers: Weighted
    # Candidates that are not to be asked again, by key; and deployments that cannot do what is asked, by name.
    tried: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    # The chain's first group that may be used.
    first_group: int = 0
    # Millionths of a dollar left; None: no cap.
    budget: float | None = None
    # Only candidates that pass, for example those that can resume an answer.
    only: Callable[[Candidate], bool] | None = None


class _Passed(NamedTuple):
    """Who passed a row of filters, and which of them took anybody out: name, before, after."""

    kept: Sequence[Candidate]
    dropped: list[tuple[str, Sequence[Candidate], Sequence[Candidate]]]


class _Search(NamedTuple):
    """One choice under way."""

    selection: SelectionRequest
    moment: Moment
    trace: DecisionTrace
    # Of each group that has nobody, the filter that left none, and whom it took out.
    blocked: list[tuple[str, Sequence[Candidate]]]
    # Who seemed to have too little context, by group.
    roomless: list[tuple[int, Candidate]]


class NobodyLeft(Unavailable):
    """Whoever could be asked has been asked already."""

    default_reason = "NO_HEALTHY_DEPLOYMENT"


# The share of failures from which a candidate is passed over now and then: more than five in a row after a good time,
# which are the breaker's affair. And the share of requests that it is given at least.
_OFTEN: Final = 0.42
_MIN_SHARE: Final = 0.05
# Kinds of requests that are remembered; tenants are part of a kind.
_MAX_KINDS: Final = 4096


class Selector:
    """Chooses among the fleet's candidates."""

    def __init__(self, fleet: Fleet, ramp: Ramp, chance: random.Random) -> None:
        self._fleet = fleet
        self.ramp = ramp
        self._chance = chance
        self._groups: dict[tuple[str, int], list[Candidate]] = {}
        # Who passes for each kind of request, with what to note of it.
        self._kinds: dict[tuple[object, ...], _Passed] = {}
        self._version = -1

    def choose(self, selection: SelectionRequest, now: float, trace: DecisionTrace) -> Selected | MeshError:
        """The best candidate of the first group that has one; or the error that says why none has.

        Who seems to have too little context is passed over. The estimate may be wrong: where nobody else is left, those
        with the most are asked after all, and say exactly why not.
        """
        search = _Search(selection, Moment(now, selection.budget, self.ramp, self._chance), trace, [], [])
        return self._first(search) or self._roomiest(search) or why_none(search.blocked, now)

    def _first(self, search: _Search) -> Selected | None:
        # Those that may be well again, and the first group that has any: asked on the side, unless they are all.
        due: list[Candidate] = []
        due_group = first_group = search.selection.first_group
        # The first group whose members keep failing now and then: left for its turn unless nobody else is there.
        spare: tuple[int, list[Candidate]] | None = None
        for group in range(first_group, len(search.selection.route.groups)):
            kept = self._filter(search, group)
            steady = [c for c in kept if c.endpoint.breaker.state is BreakerState.CLOSED]
            if len(steady) != len(kept) and not due:
                due_group, due = group, [c for c in kept if c.endpoint.breaker.state is not BreakerState.CLOSED]
            reliable = self._reliable(steady, search.moment)
            if reliable:
                return Selected(self._pick(search, reliable), group, due[0] if due else None)
            if steady and spare is None:
                search.trace.dropped("reliability", steady, ())
                spare = (group, steady)
        if spare is not None:
            return Selected(self._pick(search, spare[1]), spare[0], due[0] if due else None)
        return Selected(self._pick(search, due), due_group, None) if due else None

    def _roomiest(self, search: _Search) -> Selected | None:
        """Of those that seemed to have too little context, one with the most."""
        if not search.roomless:
            return None
        members = [candidate for _, candidate in search.roomless]
        passed = _pass(_AFTER_CONTEXT, search.selection.profile, members, search.moment)
        if not passed.kept:
            # What keeps them from being asked is not their context, which is an estimate.
            search.blocked.append(passed.dropped[-1][:2])
            return None
        most = max(c.context for c in passed.kept)
        picked = self._pick(search, [c for c in passed.kept if c.context == most])
        return Selected(picked, next(group for group, candidate in search.roomless if candidate is picked), None)

    def _reliable(self, candidates: Sequence[Candidate], moment: Moment) -> list[Candidate]:
        """Those whose turn it is: one that fails often is asked the less, and often enough to see it recover.

        While faults come in a row it is asked as before: they are the breaker's to judge, and sooner judged so.
        """
        kept = []
        for candidate in candidates:
            failing = candidate.endpoint.reliability.failing(moment.now)
            if (
                failing < _OFTEN
                or candidate.endpoint.breaker.in_a_row
                or self._chance.random() < max(_MIN_SHARE, (1.0 - failing) ** 2)
            ):
                kept.append(candidate)
        return kept

    def has_others(self, route: Route, candidate: Candidate) -> bool:
        """Whether the route leads anywhere besides this candidate."""
        return any(c is not candidate for i in range(len(route.groups)) for c in self._members(route, i))

    def _members(self, route: Route, group: int) -> list[Candidate]:
        if self._version != self._fleet.version:
            self._groups.clear()
            self._kinds.clear()
            self._version = self._fleet.version
        key = (route.model.name, group)
        members = self._groups.get(key)
        if members is None:
            members = [c for d in route.groups[group] for c in self._fleet.candidates(d.name)]
            self._groups[key] = members
        return members

    def _of_kind(self, selection: SelectionRequest, group: int, moment: Moment) -> _Passed:
        """The group's members that pass the filters which only look at the request's kind."""
        members = self._members(selection.route, group)
        key = (selection.route.model.name, group, kind_of(selection.profile))
        passed = self._kinds.get(key)
        if passed is None:
            if len(self._kinds) >= _MAX_KINDS:
                self._kinds.clear()
            passed = self._kinds[key] = _pass(KINDS, selection.profile, members, moment)
        return passed

    def _filter(self, search: _Search, group: int) -> Sequence[Candidate]:
        selection = search.selection
        first = self._of_kind(selection, group, search.moment)
        members = first.kept
        if selection.only is not None:
            members = [c for c in members if selection.only(c)]
        if selection.tried or selection.refused:
            tried, refused = selection.tried, selection.refused
            members = [c for c in members if c.key not in tried and c.deployment.name not in refused]
        second = _pass(FILTERS, selection.profile, members, search.moment)
        for name, before, after in (*first.dropped, *second.dropped):
            search.trace.dropped(name, before, after)
            if name == "context":
                search.roomless.extend((group, c) for c in before if c not in after)
        if not second.kept:
            last = second if second.dropped else first
            name, candidates = last.dropped[-1][:2] if last.dropped and not last.kept else ("", ())
            search.blocked.append(("tried" if not name and first.kept else name, candidates))
        return second.kept

    def _pick(self, search: _Search, pool: Sequence[Candidate]) -> Candidate:
        selection, trace = search.selection, search.trace
        if len(pool) == 1:
            trace.note("pick", pool[0].key)
            return pool[0]
        totals = [0.0] * len(pool)
        for scorer, weight in selection.scorers:
            scores = scorer(selection.profile, pool, search.moment)
            totals = [t + weight * s for t, s in zip(totals, scores, strict=True)]
        best = max(totals)
        winners = [i for i, total in enumerate(totals) if total >= best - 1e-9]
        winner = winners[0] if len(winners) == 1 else self._chance.choice(winners)
        trace.scored(pool, totals, winner)
        return pool[winner]


def _pass(
    filters: Sequence[tuple[str, Filter]], profile: RequestProfile, members: Sequence[Candidate], moment: Moment
) -> _Passed:
    dropped = []
    for name, passes in filters:
        if not members:
            break
        kept = passes(profile, members, moment)
        if len(kept) != len(members):
            dropped.append((name, members, kept))
        members = kept
    return _Passed(members, dropped)


_AFTER_CONTEXT: Final = tuple(each for each in FILTERS if each[0] != "context")
# From what time heals to what nothing heals; the first that occurred anywhere is what the caller is told.
_BUSY, _DOWN = ("backpressure",), ("breaker", "health", "")


def why_none(blocked: Sequence[tuple[str, Sequence[Candidate]]], now: float) -> MeshError:
    """The error for what stopped the groups: the filter that left nobody, with whom it stopped."""
    names = {name for name, _ in blocked if name != "context"}
    if names & set(_BUSY):
        wait = min(c.endpoint.busy_until for name, members in blocked if name in _BUSY for c in members) - now
        return ResourceExhausted(
            "every deployment is too busy", reason="ALL_DEPLOYMENTS_BUSY", retry_after_s=max(0.0, wait)
        )
    if not names or names & set(_DOWN):
        waits = [
            c.endpoint.breaker.blocked_until - now for name, members in blocked if name == "breaker" for c in members
        ]
        probed = [c for name, members in blocked if name == "breaker" for c in members if _being_probed(c)]
        return (BeingProbed if probed else Unavailable)(
            "no deployment of the model is healthy",
            reason="NO_HEALTHY_DEPLOYMENT",
            retry_after_s=max(0.0, min(waits)) if waits else None,
        )
    if "tried" in names:
        return NobodyLeft("every deployment that could be asked has been asked")
    if "cost" in names:
        return FailedPrecondition(
            "the answer could cost more than the cap; lower max_tokens or raise the cap", reason="COST_CAP_EXCEEDED"
        )
    return FailedPrecondition(
        f"no deployment of the model can be used for this request: {', '.join(sorted(names))}",
        reason="NO_CAPABLE_DEPLOYMENT",
        metadata={"filters": ",".join(sorted(names))},
    )


def _being_probed(candidate: Candidate) -> bool:
    return candidate.endpoint.breaker.state is BreakerState.HALF_OPEN
