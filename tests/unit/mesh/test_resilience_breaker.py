"""The breaker: pybreaker's four traps, half-open, and opinions of other processes."""

import asyncio
import gc

import pybreaker
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesh.errors import InvalidArgument, Outcome, ResourceExhausted, Unavailable
from mesh.resilience import (
    Breaker,
    BreakerPolicy,
    BreakerSnapshot,
    BreakerState,
    Endpoint,
    Endpoints,
    LoadShed,
    ResilienceStack,
)
from mesh.resilience.breaker import BreakerOpen
from tests.fakes.clock import MovingClock

POLICY = BreakerPolicy(failures=3, reset_s=1.0, max_reset_s=3.0, probe_lease_s=10.0)
SILENT = (Outcome.CALLER_FAULT, Outcome.BACKPRESSURE)


def make(clock: MovingClock) -> Breaker:
    return Breaker("t", POLICY, clock)


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.admit().resolve(Outcome.FAULT)


async def test_trap_an_async_call_counts_when_it_ends_not_when_it_begins() -> None:
    """pybreaker around an `async def` records success before the body ran."""
    naive = pybreaker.CircuitBreaker(fail_max=1)

    @naive
    async def broken() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await broken()
    assert naive.current_state == "closed"

    breaker = make(MovingClock())
    permits = [breaker.admit() for _ in range(3)]
    assert breaker.state is BreakerState.CLOSED
    for permit in permits:
        permit.resolve(Outcome.FAULT)
    assert breaker.state is BreakerState.OPEN


async def test_trap_call_async_is_tornados_and_is_not_used() -> None:
    """`call_async` needs tornado; ours awaits with plain asyncio."""
    with pytest.raises(NameError):
        pybreaker.CircuitBreaker().call_async(asyncio.sleep, 0)
    clock = MovingClock()
    stack = ResilienceStack(Endpoints(POLICY, clock), shed=LoadShed(4), clock=clock)

    async def work(timeout_s: float) -> str:
        await asyncio.sleep(0)
        return "done"

    from mesh.clock import Deadline  # noqa: PLC0415 - next to its one use

    assert await stack.call("t", work, Deadline(5, clock), retry_safe=True) == "done"


@pytest.mark.parametrize("how", ["with", "dropped"])
async def test_trap_a_cancelled_call_moves_nothing(how: str) -> None:
    """A CancelledError is a BaseException, which pybreaker counts."""
    naive = pybreaker.CircuitBreaker(fail_max=1, throw_new_error_on_trip=False)

    def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        naive.call(cancelled)
    assert naive.current_state == "open"

    breaker = make(MovingClock())
    entered = asyncio.Event()

    async def call() -> None:
        if how == "with":
            with breaker.admit():
                entered.set()
                await asyncio.Event().wait()
        else:
            permit = breaker.admit()
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                permit.release()

    for _ in range(5):
        entered.clear()
        task = asyncio.create_task(call())
        await entered.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    gc.collect()
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 3)
    assert breaker.state is BreakerState.OPEN


def test_trap_half_open_admits_one_probe_at_a_time() -> None:
    """pybreaker, used across an await, lets everyone through while half-open."""
    clock = MovingClock()
    breaker = make(clock)
    fail(breaker, 3)
    clock.now += 1.0
    probe = breaker.admit()
    assert probe.probe
    for _ in range(3):
        with pytest.raises(BreakerOpen) as refused:
            breaker.admit()
        assert refused.value.retry_after_s == pytest.approx(POLICY.probe_lease_s)
    probe.resolve(Outcome.OK)
    assert breaker.state is BreakerState.CLOSED
    assert [breaker.admit().probe for _ in range(3)] == [False] * 3


@pytest.mark.parametrize("outcome", SILENT)
def test_callers_faults_and_back_pressure_never_open_it(outcome: Outcome) -> None:
    breaker = make(MovingClock())
    for _ in range(1000):
        breaker.admit().resolve(outcome)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 2)
    breaker.admit().resolve(outcome)
    fail(breaker, 1)
    # They are no successes either: three faults in a row stay three.
    assert breaker.state is BreakerState.OPEN


@pytest.mark.parametrize("outcome", [*SILENT, Outcome.OK])
def test_any_answer_to_a_probe_closes_it(outcome: Outcome) -> None:
    clock = MovingClock()
    breaker = make(clock)
    fail(breaker, 3)
    clock.now += 1.0
    breaker.admit().resolve(outcome)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.recovered_at == clock.now


def test_failed_probes_wait_longer_up_to_a_limit() -> None:
    clock = MovingClock()
    breaker = make(clock)
    fail(breaker, 3)
    waits = []
    for _ in range(4):
        waits.append(breaker.blocked_until - clock.now)
        clock.now = breaker.blocked_until
        breaker.admit().resolve(Outcome.MIDSTREAM_FAULT)
        assert breaker.state is BreakerState.OPEN
    assert waits == pytest.approx([1.0, 2.0, 3.0, 3.0])


def test_a_cancelled_probe_makes_room_for_the_next_and_a_lost_one_does_later() -> None:
    clock = MovingClock()
    breaker = make(clock)
    fail(breaker, 3)
    clock.now += 1.0
    breaker.admit().release()
    lost = breaker.admit()
    assert lost.probe
    clock.now += POLICY.probe_lease_s
    second = breaker.admit()
    lost.resolve(Outcome.FAULT)  # too late: it is not the probe any more
    assert breaker.state is BreakerState.HALF_OPEN
    second.resolve(Outcome.OK)
    assert breaker.state is BreakerState.CLOSED


def test_calls_from_before_it_opened_do_not_close_it() -> None:
    clock = MovingClock()
    breaker = make(clock)
    early = breaker.admit()
    fail(breaker, 3)
    early.resolve(Outcome.OK)
    assert breaker.state is BreakerState.OPEN


def test_newer_opinions_are_taken_over_and_older_ones_are_not() -> None:
    clock = MovingClock()
    mine, theirs = make(clock), make(clock)
    fail(theirs, 3)
    assert mine.adopt(theirs.snapshot())
    assert not mine.adopt(theirs.snapshot())
    assert mine.state is BreakerState.OPEN
    assert mine.blocked_until == pytest.approx(theirs.blocked_until)
    clock.now += 1.0
    probe = theirs.admit()
    assert mine.adopt(theirs.snapshot())
    # Somebody else probes: nobody asks meanwhile, but not for ever.
    with pytest.raises(BreakerOpen):
        mine.admit()
    probe.resolve(Outcome.OK)
    mine.adopt(theirs.snapshot())
    assert mine.state is BreakerState.CLOSED
    assert not mine.admit().probe
    assert not mine.adopt(BreakerSnapshot(BreakerState.OPEN, version=1, open_for_s=60))


def test_two_that_probed_at_once_agree_on_the_worse() -> None:
    clock = MovingClock()
    one, two = make(clock), make(clock)
    for breaker in (one, two):
        fail(breaker, 3)
    clock.now += 1.0
    probes = [one.admit(), two.admit()]
    probes[0].resolve(Outcome.OK)
    probes[1].resolve(Outcome.FAULT)
    assert one.version == two.version
    assert one.adopt(two.snapshot())
    assert not two.adopt(one.snapshot())
    assert one.state is two.state is BreakerState.OPEN


def test_a_prober_that_died_is_replaced() -> None:
    clock = MovingClock()
    breaker = make(clock)
    breaker.adopt(BreakerSnapshot(BreakerState.HALF_OPEN, version=7))
    clock.now += POLICY.probe_lease_s
    probe = breaker.admit()
    assert probe.probe
    probe.resolve(Outcome.OK)
    assert breaker.state is BreakerState.CLOSED


def test_a_guard_leaves_a_busy_target_alone_for_as_long_as_it_asked() -> None:
    clock = MovingClock()
    endpoint = Endpoint(make(clock), clock)
    endpoint.settle(endpoint.admit(), ResourceExhausted("full", retry_after_s=4.0))
    with pytest.raises(ResourceExhausted) as busy:
        endpoint.admit()
    assert busy.value.retry_after_s == pytest.approx(4.0)
    assert endpoint.breaker.state is BreakerState.CLOSED
    clock.now += 4.0
    endpoint.settle(endpoint.admit(), InvalidArgument("no"))
    endpoint.settle(endpoint.admit(), ResourceExhausted("full", retry_after_s=1e9))
    clock.now += 60.0
    endpoint.settle(endpoint.admit(), Unavailable("draining", retry_after_s=2.0))
    with pytest.raises(ResourceExhausted):
        endpoint.admit()


class BreakerMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: one probe at a time, and it always comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = MovingClock()
        self.breaker = make(self.clock)
        self.out: list = []
        self.version = 0

    @rule()
    def admit(self) -> None:
        blocked = self.breaker.state is not BreakerState.CLOSED and self.clock.now < self.breaker.blocked_until
        if blocked:
            with pytest.raises(BreakerOpen):
                self.breaker.admit()
        else:
            self.out.append(self.breaker.admit())

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=st.sampled_from([*Outcome, None]))
    def settle(self, data, outcome) -> None:
        permit = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        if outcome is None:
            permit.release()
        else:
            permit.resolve(outcome)

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(state=st.sampled_from(list(BreakerState)), ahead=st.integers(-2, 3), left=st.floats(0, 5))
    def hear(self, state: BreakerState, ahead: int, left: float) -> None:
        self.breaker.adopt(BreakerSnapshot(state, self.breaker.version + ahead, left))

    @invariant()
    def versions_only_grow(self) -> None:
        assert self.breaker.version >= self.version
        self.version = self.breaker.version

    def teardown(self) -> None:
        # A target that answers is always used again in the end.
        for permit in self.out:
            permit.release()
        self.clock.now += 30.0
        self.breaker.admit().resolve(Outcome.OK)
        assert self.breaker.state is BreakerState.CLOSED


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_another_policy_holds_for_what_comes() -> None:
    """A breaker that is open stays so as long as it was told; counts and waits are the new policy's from then on."""
    clock = MovingClock()
    endpoints = Endpoints(POLICY, clock)
    known = endpoints.of("known").breaker
    fail(known, 2)
    endpoints.use(BreakerPolicy(failures=1, reset_s=5.0, max_reset_s=8.0))
    new = endpoints.of("new").breaker
    fail(new)
    fail(known)
    assert (known.state, new.state) == (BreakerState.OPEN, BreakerState.OPEN)
    assert known.blocked_until == new.blocked_until == clock.monotonic() + 5.0
    endpoints.use(BreakerPolicy(failures=1, reset_s=0.5, max_reset_s=1.0))
    assert known.blocked_until == clock.monotonic() + 5.0
    clock.now += 5.0
    fail(known)
    assert known.blocked_until == clock.monotonic() + 1.0
