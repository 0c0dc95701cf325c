"""The stack's layers in their order, the retry budget, and load-shedding."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.clock import Deadline
from mesh.errors import DeadlineExceeded, InvalidArgument, MeshError, Outcome, ResourceExhausted, Unavailable
from mesh.resilience import BreakerPolicy, Endpoints, LoadShed, ResilienceStack, RetryBudget, RetryPolicy, pauses
from mesh.resilience.breaker import BreakerOpen
from tests.fakes.clock import MovingClock

NEVER_OPENS = BreakerPolicy(failures=10**9)


def stack(clock: MovingClock, policy: BreakerPolicy = NEVER_OPENS, maximum: int = 8) -> ResilienceStack:
    return ResilienceStack(Endpoints(policy, clock), shed=LoadShed(maximum), clock=clock)


class Target:
    """Answers with what it is told to, then with success."""

    def __init__(self, *errors: MeshError) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self, timeout_s: float) -> str:
        assert timeout_s > 0
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "ok"


@pytest.mark.parametrize(("maximum", "attempts"), [(40.0, 3), (5.0, 9)])
@given(outages=st.integers(400, 1500))
def test_under_total_outage_the_mesh_amplifies_by_a_fifth_at_most(maximum: float, attempts: int, outages: int) -> None:
    budget = RetryBudget(RetryPolicy(max_balance=maximum, floor=min(20.0, maximum)))
    for _ in range(500):  # a good time, in which as much is saved up as can be
        budget.on_request()
        budget.on_outcome(Outcome.OK)
    made = 0
    for _ in range(outages):
        budget.on_request()
        made += 1
        for _ in range(attempts - 1):
            if not budget.take():
                break
            made += 1
    assert made / outages <= 1.2


def test_a_quiet_mesh_can_retry_at_all() -> None:
    budget = RetryBudget(RetryPolicy())
    budget.on_request()
    assert budget.take()


def test_a_smaller_budget_keeps_what_fits() -> None:
    budget = RetryBudget(RetryPolicy(floor=20.0))
    budget.use(RetryPolicy(ratio=0.0, floor=1.0, max_balance=2.0))
    assert budget.balance == 2.0
    budget.use(RetryPolicy(ratio=0.0, floor=1.0, max_balance=50.0))
    budget.on_request()
    assert budget.balance == 2.0


def test_pauses_grow_and_stay_within_their_limit() -> None:
    policy = RetryPolicy(attempts=12, first_pause_s=0.02, max_pause_s=0.5)
    drawn = [list(pauses(policy)) for _ in range(50)]
    assert all(len(d) == 11 for d in drawn)
    assert all(0.0 <= p <= 0.5 for d in drawn for p in d)
    assert max(d[0] for d in drawn) <= 0.04 < max(d[-1] for d in drawn)


async def test_a_fault_is_tried_again_after_a_pause() -> None:
    clock = MovingClock()
    target = Target(Unavailable("a"), Unavailable("b"))
    assert await stack(clock).call("t", target, Deadline(10, clock), retry_safe=True) == "ok"
    assert target.calls == 3
    assert len(clock.slept) == 2


async def test_what_is_not_safe_or_not_retryable_is_tried_once() -> None:
    clock = MovingClock()
    for errors, safe in (([Unavailable("a")], False), ([InvalidArgument("b")], True)):
        target = Target(*errors)
        with pytest.raises(type(errors[0])):
            await stack(clock).call("t", target, Deadline(10, clock), retry_safe=safe)
        assert target.calls == 1


async def test_retry_after_is_waited_for_or_not_at_all() -> None:
    clock = MovingClock()
    target = Target(ResourceExhausted("full", retry_after_s=3.0))
    assert await stack(clock).call("t", target, Deadline(10, clock), retry_safe=True) == "ok"
    assert clock.slept == [3.0]
    target = Target(ResourceExhausted("full", retry_after_s=30.0))
    with pytest.raises(ResourceExhausted):
        await stack(clock).call("t", target, Deadline(10, clock), retry_safe=True)


async def test_no_call_outlives_its_deadline() -> None:
    clock = MovingClock()

    async def never(timeout_s: float) -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlineExceeded):
        await stack(clock).call("t", never, Deadline(0.02, clock), retry_safe=False)
    passed = Deadline(0.0, clock)
    target = Target()
    with pytest.raises(DeadlineExceeded):
        await stack(clock).call("t", target, passed, retry_safe=True)
    assert target.calls == 0


async def test_an_open_breaker_makes_no_call() -> None:
    clock = MovingClock()
    guarded = stack(clock, BreakerPolicy(failures=1, reset_s=60.0))
    with pytest.raises(Unavailable):
        await guarded.call("t", Target(Unavailable("down")), Deadline(10, clock), retry_safe=False)
    target = Target()
    with pytest.raises(BreakerOpen):
        await guarded.call("t", target, Deadline(10, clock), retry_safe=True)
    assert target.calls == 0
    assert await guarded.call("other", target, Deadline(10, clock), retry_safe=True) == "ok"


async def test_what_does_not_fit_is_refused_at_once_and_places_come_back() -> None:
    clock = MovingClock()
    guarded = stack(clock, maximum=2)
    release = asyncio.Event()

    async def held(timeout_s: float) -> str:
        await release.wait()
        return "ok"

    running = [asyncio.create_task(guarded.call("t", held, Deadline(10, clock), retry_safe=False)) for _ in range(2)]
    while guarded.shed.inflight < 2:
        await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted) as refused:
        await guarded.call("t", held, Deadline(10, clock), retry_safe=False)
    assert refused.value.reason == "OVERLOADED"
    assert refused.value.retry_after_s
    release.set()
    assert await asyncio.gather(*running) == ["ok", "ok"]
    assert guarded.shed.inflight == 0


async def test_guards_are_bounded_and_forgotten() -> None:
    endpoints = Endpoints(NEVER_OPENS, MovingClock())
    for i in range(10_050):
        endpoints.of(f"t{i}")
    assert sum(1 for _ in endpoints) == 10_000
    endpoints.forget("t10049")
    assert endpoints.find("t10049") is None
