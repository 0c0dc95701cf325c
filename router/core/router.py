"""The router as a whole: the routes in force, and a session for each request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.router.v1 import router_pb2
from mesh.clock import Deadline
from mesh.errors import NotFound
from mesh.resilience import BreakerPolicy, RetryPolicy
from router.core.calibration import Calibration
from router.core.catalog import Catalog, Route, resolve
from router.core.choosing import Wish
from router.core.demand import Demand, demand_of, question_of
from router.core.fleet import Fleet
from router.core.judging import Judge
from router.core.second_opinion import SecondOpinion
from router.core.session import Session
from router.core.steps import Recent, Steps
from router.core.strategies import scorers_of
from router.core.tries import Dispatch, Tries


@dataclass(frozen=True)
class Routing:
    """A routing file that can be used as it stands."""

    catalog: Catalog
    # A hash of everything that was read: equal versions route equally.
    version: str
    # The calibrations that the models' cascades name, by model.
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)


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
        self._dispatch.chooser.ramp = routing.catalog.ramp
        self._dispatch.stack.use(*policies_of(routing.catalog))
        self.fleet.use(routing.catalog.deployments)

    def session(self, request: router_pb2.GenerateRequest, deadline: Deadline) -> Session:
        """A session for the request. Raises NotFound for a model that is not there for this tenant."""
        route = self.routes.get(request.generation.model)
        demand = demand_of(request)
        if route is None or (route.model.tenants and demand.tenant not in route.model.tenants):
            raise NotFound("no model has this name", field="model", reason="MODEL_NOT_FOUND")
        steps = Steps(self._dispatch.clock)
        cascade = self.routing.calibrations.get(route.model.name)
        question = question_of(request.generation) if cascade or route.model.keywords else ""
        wish = Wish(demand, route, scorers_of(route.model, question, demand.labels))
        if route.model.cascade and route.model.cascade.window_tokens:
            # A window is judged before the node's own figures come at the end.
            wish.logprobs = not request.generation.sampling.logprobs
        timers = self.routing.catalog.timers
        tries = Tries(self._dispatch, request, wish, timers=timers, deadline=deadline, steps=steps)
        judge = self._judge(tries, cascade, question, steps) if cascade else None
        session = Session(tries, steps, judge)
        self.recent.add(demand.request_id, steps, session.disclosure)
        self._shadow(request, route, demand)
        return session

    def _judge(self, tries: Tries, calibration: Calibration, question: str, steps: Steps) -> Judge:
        wish = tries.wish
        judge = Judge(
            wish.route, calibration, question, wants_json=wish.demand.structured, metrics=self._dispatch.metrics
        )
        cascade = wish.route.model.cascade
        if cascade is not None and cascade.judge is not None:
            judge.second = SecondOpinion(self._dispatch, self.routing.catalog, cascade.judge, tries, steps=steps)
        return judge

    def _shadow(self, request: router_pb2.GenerateRequest, route: Route, demand: Demand) -> None:
        shadow = route.model.shadow
        candidates = self.fleet.candidates(shadow.deployment) if shadow else ()
        if shadow is None or not candidates or not demand.needs <= candidates[0].deployment.capabilities:
            return
        least = min(candidates, key=lambda c: c.replica.outstanding)
        timers = least.deployment.timers or self.routing.catalog.timers
        self._dispatch.mirrors.shadow(least, request, timers, shadow.percent)


def policies_of(catalog: Catalog) -> tuple[BreakerPolicy, RetryPolicy]:
    """The routing file's breaker and retry sections, in the mesh's terms."""
    breaker, retry = catalog.breaker, catalog.retry
    return (
        BreakerPolicy(breaker.failures, breaker.reset_s, breaker.longest_reset_s, breaker.probe_lease_s),
        RetryPolicy(retry.ratio, retry.success_ratio, retry.floor, retry.most),
    )
