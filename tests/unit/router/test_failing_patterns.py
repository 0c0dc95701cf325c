"""Whatever a first deployment does, an idle and healthy second one loses no request; and nobody is asked without end.

The router itself on virtual time: its selector, breakers, budgets and attempts, with nodes that follow a pattern.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.common.v1 import generation_pb2
from headrace.router.v1 import router_pb2
from mesh.clock import Deadline
from mesh.errors import FailedPrecondition, Internal, MeshError, ResourceExhausted, StreamCut, Unavailable
from mesh.resilience import BreakerState, Endpoints, RetryBudgets
from router.core.attempts import Dispatch
from router.core.catalog import Catalog, Deployment, Model
from router.core.decision_trace import Recent
from router.core.fleet import Candidate, Fleet
from router.core.mirroring import Mirrors
from router.core.poison_guard import PoisonGuard
from router.core.router import Router, Routing, policies_of
from router.core.selector import Selector
from tests.fakes.virtual_time import LoopClock, run

# How a call may go wrong: after how many seconds, after how many messages, with what.
KINDS: dict[str, tuple[float, int, Callable[[], MeshError]]] = {
    "refused": (0.0, 0, lambda: Unavailable("failed to connect")),
    "500": (0.05, 0, lambda: Unavailable("HTTP 500", reason="PROVIDER_FAILED")),
    "529": (0.05, 0, lambda: ResourceExhausted("overloaded")),
    "429 for a second": (0.05, 0, lambda: ResourceExhausted("slow down", retry_after_s=1.0)),
    "silent": (15.0, 0, lambda: Unavailable("no data received", reason="FIRST_TOKEN_TIMEOUT")),
    "account": (0.05, 0, lambda: Unavailable("HTTP 401", reason="PROVIDER_REFUSED_ACCOUNT")),
    "cut": (0.5, 2, lambda: StreamCut("cut")),
    "defect": (0.01, 0, lambda: Internal("a defect")),
}


@dataclass
class Stream:
    """One generation at a node that follows a pattern. Implements router.core.ports.NodeStream."""

    fails: str | None
    first_s: float
    sent: int = 0

    async def read(self) -> router_pb2.GenerateResponse | None:
        seconds, messages, error = KINDS[self.fails] if self.fails else (0.0, 4, None)
        if error is not None and self.sent >= messages:
            await asyncio.sleep(seconds)
            raise error()
        await asyncio.sleep(self.first_s if not self.sent else 0.1)
        self.sent += 1
        message = router_pb2.GenerateResponse()
        delta = message.deltas.add(text="a", token_ids=[1])
        if self.sent == 4:
            delta.finish_reason = generation_pb2.FINISH_REASON_STOP
            message.summary.usage.completion_tokens = 4
        return message

    def finish(self) -> None: ...

    def cancel(self) -> None: ...


@dataclass
class World:
    """Deployments in a chain, each with one replica; `fails(deployment, now)` says what becomes of a call."""

    names: tuple[str, ...]
    fails: Callable[[str, float], str | None]
    first_s: float = 0.3
    clock: LoopClock = field(default_factory=LoopClock)
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        deployments = tuple(Deployment(name=n, service=n, model="m") for n in self.names)
        catalog = Catalog(deployments=deployments, models=(Model(name="pub", chain=self.names),))
        breaker, retry = policies_of(catalog)
        fleet = Fleet(Endpoints(breaker, self.clock))
        chance = random.Random(7)
        selector = Selector(fleet, catalog.ramp, chance)
        mirrors = Mirrors(self, self, self.clock, chance)
        poison = PoisonGuard(self.clock)
        dispatch = Dispatch(RetryBudgets(retry), selector, self, mirrors, self, self.clock, poison)
        self.router = Router(dispatch, fleet, Routing(catalog, "v"), Recent(10))
        fleet.seen({f"{n}-0": (n, f"h:{n}") for n in self.names}, self.clock.monotonic() - 60.0)

    def open(self, candidate: Candidate, request: object, timers: object, deadline: Deadline) -> Stream:
        self.calls.append(candidate.deployment.name)
        return Stream(self.fails(candidate.deployment.name, self.clock.monotonic()), self.first_s)

    def attempt(self, *labels: str) -> None: ...

    async def ask(self, number: int = 0, tenant: str = "t") -> MeshError | None:
        request = router_pb2.GenerateRequest(delivery=router_pb2.DELIVERY_WHOLE)
        request.context.tenant, request.context.request_id = tenant, f"{tenant}-{number}"
        request.generation.model = "pub"
        request.generation.prompt.chat.messages.add(role=3).content.add(text=f"question {number}")
        try:
            session = self.router.session(request, Deadline(60.0, self.clock))
            async for _ in session.stream():
                pass
        except MeshError as error:
            return error
        return None

    async def load(self, count: int, rate: float, tenant: str = "t") -> list[MeshError | None]:
        tasks = []
        for number in range(count):
            tasks.append(asyncio.ensure_future(self.ask(number, tenant)))
            await asyncio.sleep(1.0 / rate)
        return await asyncio.gather(*tasks)


RATES = st.sampled_from((0.5, 2.0, 10.0, 50.0))


@settings(max_examples=25)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    share=st.floats(0.1, 1.0),
    rate=RATES,
    burst_s=st.sampled_from((0.0, 5.0, 60.0)),
    first_s=st.sampled_from((0.05, 0.5, 2.0)),
)
@example(kind="529", share=1.0, rate=1.0, burst_s=0.0, first_s=0.5)
@example(kind="529", share=0.8, rate=1.0, burst_s=0.0, first_s=0.5)
@example(kind="500", share=0.5, rate=50.0, burst_s=0.0, first_s=2.0)
@example(kind="silent", share=0.5, rate=50.0, burst_s=0.0, first_s=2.0)
@example(kind="silent", share=1.0, rate=50.0, burst_s=0.0, first_s=2.0)
def test_an_idle_backup_loses_at_most_one_request_in_a_hundred(
    kind: str, share: float, rate: float, burst_s: float, first_s: float
) -> None:
    chance = random.Random(3)

    def fails(name: str, now: float) -> str | None:
        broken = not burst_s or now % (2 * burst_s) < burst_s
        return kind if name == "first" and broken and chance.random() < share else None

    async def scenario() -> list[MeshError | None]:
        world = World(("first", "backup"), fails, first_s)
        # Another tenant is there: what is kept for it must not be missing here.
        await world.load(3, 10.0, "other")
        return await world.load(300, rate)

    lost = [error for error in run(scenario()) if error is not None]
    assert len(lost) <= 3, (len(lost), lost[0])


@settings(max_examples=20)
@given(kind=st.sampled_from(sorted(KINDS)), rate=RATES, healthy_first=st.booleans())
def test_with_everything_down_a_request_makes_at_most_1_2_attempts(kind: str, rate: float, healthy_first: bool) -> None:
    async def scenario() -> float:
        down = not healthy_first
        world = World(("first", "second", "third"), lambda name, now: kind if down else None)
        if healthy_first:
            await world.load(200, 50.0)
        down = True
        world.calls.clear()
        await world.load(500, rate)
        return len(world.calls) / 500

    assert run(scenario()) <= 1.2


def test_a_tenant_whose_requests_always_fail_leaves_retries_to_the_others() -> None:
    budget = RetryBudgets(policies_of(Catalog(deployments=(), models=()))[1]).of("pub")
    budget.on_request("honest")
    for _ in range(1000):
        budget.on_request("hostile")
        while budget.take("hostile"):
            pass
    assert budget.take("honest")


def test_a_deployment_that_comes_back_serves_everybody_from_its_first_tokens_on() -> None:
    """One probe, and those who ask meanwhile wait for its first token, not for its answer."""

    async def scenario() -> list[MeshError | None]:
        healed = [False]
        world = World(("only",), lambda name, now: None if healed[0] else "500", first_s=1.0)
        await world.load(10, 10.0)
        await asyncio.sleep(5.0)
        healed[0] = True
        return await world.load(20, 50.0)

    assert run(scenario()) == [None] * 20


def test_a_deployment_that_keeps_failing_is_asked_less_and_more_again_once_it_is_well() -> None:
    chance = random.Random(5)

    async def scenario() -> tuple[int, int]:
        broken = [True]
        world = World(
            ("first", "backup"),
            lambda name, now: "500" if name == "first" and broken[0] and chance.random() < 0.6 else None,
        )
        await world.load(300, 10.0)
        world.calls.clear()
        await world.load(200, 10.0)
        asked_failing = world.calls.count("first")
        broken[0] = False
        await world.load(600, 5.0)
        world.calls.clear()
        await world.load(200, 10.0)
        return asked_failing, world.calls.count("first")

    failing, well = run(scenario())
    assert failing < 120
    assert well > 190


def test_a_request_that_breaks_two_replicas_is_refused_and_moves_no_breaker() -> None:
    async def scenario() -> tuple[list[MeshError | None], list[str], list[MeshError | None]]:
        poison = [False]
        world = World(("a", "b", "c"), lambda name, now: "defect" if poison[0] else None)
        for name in world.names:
            # It has answered others just now.
            endpoint = world.router.fleet.candidates(name)[0].endpoint
            endpoint.reliability.answered(world.clock.monotonic())
        poison[0] = True
        refused = [await world.ask(1, "hostile")]
        asked = list(world.calls)
        refused += [await world.ask(1, "hostile") for _ in range(9)]
        assert world.calls == asked
        for number in range(10, 20):
            refused.append(await world.ask(number, "hostile"))
        poison[0] = False
        states = {world.router.fleet.candidates(name)[0].endpoint.breaker.state for name in world.names}
        assert states == {BreakerState.CLOSED}
        return refused, asked, await world.load(20, 50.0)

    refused, asked, others = run(scenario())
    assert asked == ["a", "b"]
    assert {type(error) for error in refused} == {FailedPrecondition}
    assert {error.reason for error in refused if error} == {"POISON_REQUEST"}
    assert others == [None] * 20
