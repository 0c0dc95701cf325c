"""The router as a whole: the routes in force, and a session for each request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.router.v1 import router_pb2
from mesh.clock import Deadline
from mesh.errors import NotFound
from mesh.resilience import BreakerPolicy, RetryPolicy
from router.core.attempts import Attempts, Dispatch
from router.core.calibration import Calibration
from router.core.cascade_policy import CascadePolicy
from router.core.catalog import Catalog, Route, resolve
from router.core.decision_trace import DecisionTrace, Recent
from router.core.fleet import Fleet
from router.core.judge_model import JudgeModel
from router.core.prompt_limits import check_prompt
from router.core.request_profile import RequestProfile, profile_of, question_of
from router.core.routed_request import RoutedRequest
from router.core.session import Session
from router.core.strategies import scorers_of


@dataclass(frozen=True)
class Routing:
    """A routing file that can be used as it stands."""

    catalog: Catalog
    # A hash of everything that was read: equal versions route equally.
    version: str
    # The calibrations that the models' cascades name, by model.
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    # When the file was last written, in seconds since 1970.
    written_s: int = 0


class Router:
    """Holds the routing in force. One event loop."""

    def __init__(self, dispatch: Dispatch, fleet: Fleet, routing: Routing, recent: Recent) -> None:
        self.fleet = fleet
        self.recent = recent
        self._dispatch = dispatch
        # Why the newest routing file was refused; empty when it is in force.
        self.refused = ""
        self.use(routing)

    def use(self, routing: Routing) -> None:
        """Put a routing into force. Requests under way keep the one they began with."""
        self.routing = routing
        self.routes: dict[str, Route] = resolve(routing.catalog)
        self.deployments = frozenset(d.name for d in routing.catalog.deployments)
        self.refused = ""
        self._dispatch.selector.ramp = routing.catalog.ramp
        breaker, retry = policies_of(routing.catalog)
        self.fleet.endpoints.use(breaker)
        self._dispatch.budgets.use(retry)
        self.fleet.use(routing.catalog.deployments)

    def refuse(self, why: object) -> None:
        """The newest routing file cannot be used; as text `why` has a line for each mistake."""
        self.refused = str(why)

    def session(self, request: router_pb2.GenerateRequest, deadline: Deadline) -> Session:
        """A session for the request.

        Raises NotFound for a model that is not there for this tenant, FailedPrecondition for a request that has just
        made two replicas fail.
        """
        route = self.routes.get(request.generation.model)
        profile = profile_of(request)
        if route is None or (route.model.tenants and profile.tenant not in route.model.tenants):
            raise NotFound("no model has this name", field="model", reason="MODEL_NOT_FOUND")
        check_prompt(request.generation.prompt, profile, self._largest_context(route))
        self._dispatch.poison.check(request)
        calibration = self.routing.calibrations.get(route.model.name)
        question = question_of(request.generation) if calibration or route.model.keywords else ""
        # A window is judged before the node's own figures come at the end.
        judges_window = route.model.cascade is not None and route.model.cascade.window_tokens > 0
        routed = RoutedRequest(
            request,
            profile,
            route,
            scorers_of(route.model, question, profile.labels),
            timers=self.routing.catalog.timers,
            deadline=deadline,
            trace=DecisionTrace(self._dispatch.clock),
            logprobs=judges_window and not request.generation.sampling.logprobs,
        )
        attempts = Attempts(self._dispatch, routed)
        cascade_policy = self._cascade_policy(attempts, calibration, question) if calibration else None
        session = Session(attempts, cascade_policy)
        self.recent.add(profile.request_id, routed.trace, session.disclosure)
        self._shadow(request, route, profile)
        return session

    def _largest_context(self, route: Route) -> int:
        """Of all that the route leads to, in tokens; 0 where somebody's is not known."""
        largest = 0
        for deployment in (d for group in route.groups for d in group):
            known = deployment.context or max((c.context for c in self.fleet.candidates(deployment.name)), default=0)
            if not known:
                return 0
            largest = max(largest, known)
        return largest

    def _cascade_policy(self, attempts: Attempts, calibration: Calibration, question: str) -> CascadePolicy:
        route = attempts.request.route
        rule = route.model.cascade.judge if route.model.cascade else None
        return CascadePolicy(
            route,
            calibration,
            question,
            judge_model=JudgeModel(self.routing.catalog, rule, attempts) if rule else None,
            wants_json=attempts.request.profile.structured,
            metrics=self._dispatch.metrics,
        )

    def _shadow(self, request: router_pb2.GenerateRequest, route: Route, profile: RequestProfile) -> None:
        shadow = route.model.shadow
        candidates = self.fleet.candidates(shadow.deployment) if shadow else ()
        if shadow is None or not candidates or not profile.needs <= candidates[0].deployment.capabilities:
            return
        idlest = min(candidates, key=lambda c: c.replica.outstanding)
        timers = idlest.deployment.timers or self.routing.catalog.timers
        self._dispatch.mirrors.shadow(idlest, request, timers, shadow.percent)


def policies_of(catalog: Catalog) -> tuple[BreakerPolicy, RetryPolicy]:
    """The routing file's breaker and retry sections, in the mesh's terms."""
    breaker, retry = catalog.breaker, catalog.retry
    return (
        BreakerPolicy(breaker.failures, breaker.reset_s, breaker.max_reset_s, breaker.probe_lease_s),
        RetryPolicy(retry.ratio, retry.success_ratio, retry.floor, retry.max_balance),
    )
