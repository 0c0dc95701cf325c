"""A fleet in memory, for what chooses among it."""

from __future__ import annotations

import random

from headrace.router.v1 import router_pb2
from mesh.resilience import BreakerPolicy, Endpoints
from router.core.catalog import Catalog, Deployment, Model, Ramp, Route, resolve
from router.core.decision_trace import DecisionTrace
from router.core.filters import Moment
from router.core.fleet import Candidate, Fleet
from router.core.request_profile import RequestProfile, profile_of
from router.core.selector import Selected, SelectionRequest, Selector
from router.core.strategies import scorers_of
from tests.fakes.clock import MovingClock


class World:
    """Deployments, each with replicas `<service>-<i>`, and one model."""

    def __init__(self, deployments: list[Deployment], model: Model, replicas: int = 1) -> None:
        self.clock = MovingClock()
        self.fleet = Fleet(Endpoints(BreakerPolicy(failures=1, reset_s=5.0), self.clock))
        self.fleet.use(deployments)
        services = {d.service for d in deployments}
        self.fleet.seen({f"{s}-{i}": (s, f"h:{s}{i}") for s in services for i in range(replicas)}, self.clock.now)
        self.route: Route = resolve(Catalog(deployments=tuple(deployments), models=(model,)))[model.name]
        self.selector = Selector(self.fleet, Ramp(seconds=0), random.Random(1))
        self.steps = DecisionTrace(self.clock)

    @property
    def candidates(self) -> dict[str, Candidate]:
        return {c.key: c for d in self.route.groups for x in d for c in self.fleet.candidates(x.name)}

    def moment(self, budget: float | None = None) -> Moment:
        return Moment(self.clock.now, budget, self.selector.ramp, random.Random(1))

    def choose(self, question: str = "hello", **options):
        asked = profile(question, **options)
        selection = SelectionRequest(asked, self.route, scorers_of(self.route.model, question, asked.labels))
        return self.selector.choose(selection, self.clock.now, self.steps)

    def chosen(self, question: str = "hello", **options) -> str:
        choice = self.choose(question, **options)
        assert isinstance(choice, Selected), choice
        return choice.candidate.key


def profile(
    question: str = "hello", *, user: str = "", tenant: str = "t", request_id: str = "r", **labels: str
) -> RequestProfile:
    """What a chat request asks for."""
    request = router_pb2.GenerateRequest(labels=labels)
    request.context.tenant, request.context.user, request.context.request_id = tenant, user, request_id
    request.generation.prompt.chat.messages.add(role=3).content.add(text=question)
    return profile_of(request)
