"""Steps by a scripted clock: bounded in time, shared fairly, with nobody left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.core.blocks import BlockPool
from inference.core.scheduling.cost import StepCost, Work
from inference.core.scheduling.prompts import SMALLEST_CHUNK, Prompt, PromptSharing
from inference.core.scheduling.scheduled_step import Limits
from inference.core.scheduling.scheduler import Scheduler
from inference.core.scheduling.sequence import Sequence
from inference.core.scheduling.shares import TenantShares

STEP_S = 0.08
# Seconds that a step, a token of an answer, one of a prompt, a position read and one attended to take: of machines of
# which one is 60 times as fast as another.
MACHINES = [
    np.array((0.003, 0.0003, 0.00022, 0.6e-6, 2.5e-7)),
    np.array((0.012, 0.0015, 0.0009, 2e-6, 1e-6)),
    np.array((0.002, 0.00001, 0.00001, 1e-8, 4e-9)),
]


class House:
    """A scheduler on a machine that takes what its terms say, times noise."""

    def __init__(self, machine=MACHINES[0], *, seed=0, noise=0.0, blocks=4096, slots=64, context=8192) -> None:
        self.scheduler = Scheduler(Limits(slots, 512 + slots, context, STEP_S), BlockPool(blocks, 16))
        self.machine, self.noise = machine, noise
        self.rng = np.random.default_rng(seed)
        self.now = 0.0
        self.took: list[float] = []
        # When each drew its first token, and the tokens of prompts that were read for each tenant.
        self.first: dict[Sequence, float] = {}
        self.drew: dict[Sequence, list[float]] = {}
        self.read: dict[str, float] = {}

    def arrive(self, tenant: str, length: int, answer: int = 1, priority: int = 0) -> Sequence:
        tokens = self.rng.integers(0, 1 << 30, length).astype(np.int32)
        seq = Sequence(tokens, length, length + answer, self.scheduler.pool.root(tenant, ""), tenant, priority)
        self.scheduler.add(seq)
        return seq

    def step(self) -> bool:
        scheduler = self.scheduler
        scheduled = scheduler.schedule()
        if scheduled is None:
            return False
        exact = float(self.machine @ scheduled.work.terms())
        seconds = exact
        if self.noise:
            seconds *= self.rng.lognormal(0, self.noise)
            # Now and then something else has the machine.
            seconds *= 5.0 if self.rng.random() < 0.02 else 1.0
        self.now += seconds
        self.took.append(exact)
        scheduler.cost.learn(scheduled.work, seconds)
        sequences = [scheduler.table.sequence[row] for row in scheduled.rows]
        for seq, row, count in zip(sequences, scheduled.rows, scheduled.counts, strict=True):
            if scheduler.table.length[row] - scheduler.table.computed[row] > 1 and seq is not None:
                chunk = Work.chunk(int(scheduler.table.computed[row]), int(count))
                self.read[seq.tenant] = self.read.get(seq.tenant, 0.0) + float(self.machine[2:] @ chunk.terms()[2:])
        scheduler.update(scheduled)
        drawing = scheduled.rows[scheduled.draws]
        scheduler.append(drawing, self.rng.integers(0, 1 << 30, len(drawing)).astype(np.int32))
        for row in drawing:
            seq = scheduler.table.sequence[row]
            assert seq is not None
            self.first.setdefault(seq, self.now)
            self.drew.setdefault(seq, []).append(self.now)
            if scheduler.table.length[row] >= seq.limit:
                scheduler.finish(seq)
        return True

    def until(self, *sequences: Sequence, steps: int = 100_000) -> None:
        for _ in range(steps):
            if all(seq in self.first for seq in sequences):
                return
            assert self.step(), "nothing runs, and somebody waits"
        raise AssertionError("not within so many steps")


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_steps_keep_their_time_however_long_the_prompts(machine, noise):
    """Once what they cost is learned; answers run throughout."""
    house = House(machine, noise=noise)
    for number in range(4):
        house.arrive("answers", 30, answer=100_000 // 16, priority=number % 2)
    house.until(house.arrive("warm-up", 2000))
    learned = len(house.took)
    longs = [house.arrive(f"t{number}", 7800) for number in range(3)]
    house.until(*longs)
    took = np.array(house.took[learned:])
    floor = float(machine @ (1, 4, SMALLEST_CHUNK, 40_000, SMALLEST_CHUNK * 8000))
    assert np.percentile(took, 99) < max(1.5 * STEP_S, 1.2 * floor)
    if floor < STEP_S and machine[2] * 512 > STEP_S:
        # And they use it.
        assert np.median(took) > 0.6 * STEP_S


@pytest.mark.parametrize("longs", [1, 8, 40])
def test_a_short_prompt_waits_for_two_steps_beside_any_number_of_long_ones(longs):
    """Also where they hold all the room that long ones may have."""
    house = House(blocks=1024, noise=0.1)
    house.until(house.arrive("warm-up", 4000))
    waiting = [house.arrive(f"t{number}", 7800) for number in range(longs)]
    for number in range(30):
        for _ in range(3):
            house.step()
        before = len(house.took)
        short = house.arrive(f"short-{number}", 20)
        for _ in range(3):
            if short not in house.first:
                house.step()
        assert short in house.first
        # Of a machine that has nothing else to do.
        assert sum(house.took[before:]) < 0.5
    house.until(*waiting)


def test_a_tenants_own_short_prompts_wait_behind_none_of_its_long_ones():
    house = House()
    house.until(house.arrive("warm-up", 4000))
    long = house.arrive("t", 7800)
    for _ in range(10):
        house.step()
    short = house.arrive("t", 20)
    for _ in range(3):
        house.step()
    assert short in house.first
    assert long not in house.first
    # Nor does a stream of short ones keep the long one from being read.
    while long not in house.first:
        house.arrive("t", 300)
        house.step()
        assert house.now < 60


def test_a_running_stream_draws_in_every_step():
    house = House(noise=0.1)
    stream = house.arrive("stream", 20, answer=5000)
    house.until(house.arrive("warm-up", 4000), stream)
    longs = [house.arrive(f"t{number}", 7800) for number in range(3)]
    before = len(house.took)
    house.until(*longs)
    drew = [at for at in house.drew[stream] if at > 0]
    assert len(drew) >= len(house.took) - before
    assert np.percentile(np.diff(drew[-(len(house.took) - before) :]), 95) < 0.15


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_backlogged_tenants_are_read_the_same_seconds(data):
    """However long their prompts are and however many they have: to within one step's time and one prompt's."""
    house = House(machine=data.draw(st.sampled_from(MACHINES[:2])))
    house.until(house.arrive("warm-up", 3000))
    house.read.clear()
    tenants = data.draw(st.integers(2, 5))
    for tenant in range(tenants):
        length = data.draw(st.sampled_from((100, 700, 3000, 7000)))
        for _ in range(data.draw(st.integers(1, 3)) * (1 if length > 2000 else 40)):
            house.arrive(f"t{tenant}", length)
    for _ in range(data.draw(st.integers(20, 60))):
        there = {seq.tenant for seq in (*house.scheduler.running, *house.scheduler.waiting)}
        if len(there) < tenants:
            return
        house.step()
        shares = [house.read.get(f"t{tenant}", 0.0) for tenant in range(tenants)]
        if not len(house.scheduler.waiting):
            assert max(shares) - min(shares) < 4 * STEP_S + 0.5 * max(house.took[-50:])


@settings(max_examples=60, deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(
            st.integers(0, 30),
            st.sampled_from("abcd"),
            st.sampled_from((5, 40, 200, 900)),
            st.integers(1, 120),
            st.integers(0, 1),
        ),
        min_size=1,
        max_size=30,
    ),
    blocks=st.integers(72, 200),
    slots=st.integers(2, 12),
)
def test_nobody_starves_and_no_step_is_empty(arrivals, blocks, slots):
    """In so little memory that half-read prompts lose their room: everybody comes to an end, preempted a bounded number
    of times."""
    house = House(blocks=blocks, slots=slots, context=1024)
    waiting = sorted(arrivals)
    sequences = []
    for steps in range(200_000):
        while waiting and waiting[0][0] <= steps:
            _, tenant, length, answer, priority = waiting.pop(0)
            sequences.append(house.arrive(tenant, length, answer, priority))
        if not house.step() and not waiting:
            break
    assert all(len(house.drew[seq]) == seq.limit - seq.prompt_length for seq in sequences)
    assert house.scheduler.pool.held == 0
    assert all(seq.preemptions <= 4 + len(sequences) for seq in sequences)


@given(
    seconds=st.floats(0.0, 0.3),
    tokens=st.integers(1, 600),
    wanted=st.lists(
        st.tuples(st.integers(0, 7000), st.integers(1, 900), st.sampled_from("abc")), min_size=1, max_size=9
    ),
)
def test_what_a_step_reads_is_within_its_bounds_and_leaves_nothing_unused(seconds, tokens, wanted):
    cost, shares = StepCost(), TenantShares()
    for tenant in "abc":
        shares.enter(tenant, set())
    prompts = [
        Prompt(Sequence(np.empty(0, np.int32), 0, 0, b"", tenant, arrival=place), computed, count)
        for place, (computed, count, tenant) in enumerate(wanted)
    ]
    chunks = PromptSharing(cost, shares).share(prompts, seconds, tokens)
    assert chunks, "a step that has prompts reads some"
    assert len({chunk.place for chunk in chunks}) == len(chunks)
    assert all(0 < chunk.tokens <= prompts[chunk.place].wanted for chunk in chunks)
    total = sum(chunk.tokens for chunk in chunks)
    took = sum(cost.chunk(prompts[chunk.place].computed, chunk.tokens) for chunk in chunks)
    assert total <= tokens
    first = chunks[0]
    assert took <= seconds or (len(chunks) == 1 and first.tokens <= SMALLEST_CHUNK)
    whole = all(chunk.tokens == prompts[chunk.place].wanted for chunk in chunks)
    if whole and len(chunks) < len(prompts) and total < tokens:
        # Whoever is next would get less than is worth beginning.
        chosen = {chunk.place for chunk in chunks}
        left = [prompts[place] for place in range(len(prompts)) if place not in chosen]
        assert any(
            cost.fitting(prompt.computed, seconds - took) < min(prompt.wanted, SMALLEST_CHUNK) for prompt in left
        )


def test_tenants_that_come_and_go_neither_save_up_nor_owe():
    shares = TenantShares()
    shares.enter("a", set())
    shares.charge("a", 100.0)
    # Who comes while nobody is there stands where the most served stood, whoever comes beside others at the least.
    shares.enter("b", set())
    assert shares.of("b") == 100.0
    shares.charge("b", 7.0)
    shares.enter("a", {"b"})
    assert shares.of("a") == 107.0
    shares.enter("c", {"a", "b"})
    assert shares.of("c") == 107.0
    shares.charge("c", 5.0)
    shares.enter("c", {"a", "b"})
    assert shares.of("c") == 112.0, "who leaves and comes again keeps what it was served"


def test_the_largest_holder_gives_room_back_and_is_spared_once_it_has():
    house = House(blocks=72, slots=8, context=1024)
    heavy = [house.arrive("heavy", 300, 400) for _ in range(2)]
    light = house.arrive("light", 40, 400)
    while len(house.drew.get(light, ())) < 400:
        house.step()
    assert light.preemptions == 0
    house.until(*heavy)
    while house.step():
        pass
    assert house.scheduler.preemptions > 0
    assert all(len(house.drew[seq]) == 400 for seq in heavy)


def test_cost_is_not_moved_by_one_held_up_step_and_follows_what_lasts():
    cost, step = StepCost(), Work(answers=8, read=3000)
    for _ in range(100):
        cost.learn(step, 0.010)
    assert cost.of(step) == pytest.approx(0.010, rel=0.02)
    cost.learn(step, 3.0)
    assert cost.of(step) < 0.012
    for _ in range(60):
        cost.learn(step, 0.030)
    assert cost.of(step) == pytest.approx(0.030, rel=0.1)
