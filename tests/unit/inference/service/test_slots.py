"""The bounded queue before the slots."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.port import EngineOverloaded
from inference.core.slots import Slots, Ticket
from tests.fakes.clock import MovingClock

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enqueue"), st.integers(1, 3), st.integers(-1, 1)),
        st.tuples(st.just("release"), st.integers(0, 20), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_no_slot_is_lost_or_lent_twice(steps: list[tuple[str, int, int]]) -> None:
    async def run() -> None:
        slots = Slots(capacity=3, max_queued=4)
        held: list[Ticket] = []
        for action, number, priority in steps:
            if action == "enqueue":
                room = 3 - slots.running + 4 - slots.queued
                if number <= room:
                    held += slots.enqueue(number, priority)
                else:
                    with pytest.raises(EngineOverloaded) as refused:
                        slots.enqueue(number, priority)
                    assert 0.1 <= refused.value.retry_after_s <= 30
            elif held:
                held.pop(number % len(held)).release()
            running = [request_row for request_row in held if request_row.turn.done()]
            assert len(running) == slots.running <= 3
            assert len(held) - len(running) == slots.queued <= 4
            assert slots.running == 3 or slots.queued == 0
        for request_row in held:
            request_row.release()
            request_row.release()
        assert (slots.running, slots.queued) == (0, 0)

    asyncio.run(run())


async def test_the_larger_priority_goes_first_then_the_earlier() -> None:
    slots = Slots(capacity=1, max_queued=4)
    (holder,) = slots.enqueue(1, 0)
    waiting = {name: slots.enqueue(1, priority)[0] for name, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5))}
    order = []
    current = holder
    for _ in waiting:
        current.release()
        (name,) = (name for name, request_row in waiting.items() if request_row.turn.done() and name not in order)
        order.append(name)
        current = waiting[name]
    assert order == ["b", "d", "a", "c"]


async def test_a_ticket_says_how_long_it_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = MovingClock()
    monkeypatch.setattr("inference.core.slots.time", clock)
    slots = Slots(capacity=1, max_queued=1)
    (first,) = slots.enqueue(1, 0)
    clock.now += 0.5
    assert await first.wait() == 0.5
    with pytest.raises(EngineOverloaded, match="1 requests run"):
        slots.enqueue(2, 0)
