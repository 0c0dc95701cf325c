from __future__ import annotations

import numpy as np
import pytest

from inference.core.blocks import BlockPool
from inference.core.port import EngineOverloaded
from inference.core.scheduling.admission import AdmissionQueue
from inference.core.scheduling.scheduled_step import Limits
from inference.core.scheduling.scheduler import Scheduler
from inference.core.scheduling.sequence import Sequence

BLOCK = 4


def scheduler(blocks: int = 64, slots: int = 4, budget: int = 16) -> Scheduler:
    return Scheduler(Limits(slots, budget, 64), BlockPool(blocks, BLOCK))


def sequence(it: Scheduler, length: int = 6, answer: int = 4, *, tenant: str = "a", priority: int = 0, start: int = 0):
    tokens = np.arange(start, start + length, dtype=np.int32)
    return Sequence(tokens, length, length + answer, it.pool.root(tenant, ""), tenant, priority)


def run(it: Scheduler, scheduled) -> list[Sequence]:
    """Commit a plan, draw token 7 for each that draws; the sequences that drew."""
    drew = [it.table.sequence[row] for row in scheduled.rows[scheduled.draws]]
    it.update(scheduled)
    it.append(scheduled.rows[scheduled.draws], np.full(len(drew), 7, np.int32))
    return drew


def test_prompt_runs_in_chunks_beside_decoding():
    it = scheduler(budget=6)
    it.add(short := sequence(it, length=3))
    assert run(it, it.schedule()) == [short]
    it.add(long := sequence(it, length=13, start=50))
    seen = []
    for _ in range(3):
        scheduled = it.schedule()
        seen.append(dict(zip([it.table.sequence[r] for r in scheduled.rows], scheduled.counts.tolist(), strict=True)))
        drew = run(it, scheduled)
    assert [step[short] for step in seen] == [1, 1, 1]
    assert [step[long] for step in seen] == [5, 5, 3]
    assert drew == [short, long]


def test_higher_priority_starts_first_and_preempts():
    it = scheduler(slots=1)
    it.add(low := sequence(it))
    it.schedule()
    it.add(high := sequence(it, priority=1, start=30))
    it.schedule()
    assert it.running == [high]
    assert low.preemptions == 1
    it.finish(high)
    it.schedule()
    assert it.running == [low]


def test_preempted_sequence_keeps_what_it_drew():
    it = scheduler(slots=1)
    it.add(low := sequence(it))
    run(it, it.schedule())
    it.add(sequence(it, priority=1, start=30))
    it.schedule()
    assert low.tokens.tolist() == [0, 1, 2, 3, 4, 5, 7]


def test_tenants_take_turns_by_what_they_were_served():
    it = scheduler(slots=1)
    order = []
    for i in range(4):
        it.add(sequence(it, tenant="greedy", start=10 * i, length=8))
    for i in range(2):
        it.add(sequence(it, tenant="modest", start=100 + 10 * i, length=8))
    while (scheduled := it.schedule()) is not None:
        run(it, scheduled)
        order.append(it.running[0].tenant)
        it.finish(it.running[0])
    assert order == ["greedy", "modest", "greedy", "modest", "greedy", "greedy"]


def test_prefix_of_same_tenant_is_not_computed_again():
    it = scheduler()
    it.add(sequence(it, length=9))
    run(it, it.schedule())
    it.add(again := sequence(it, length=9))
    it.add(other := sequence(it, length=9, tenant="b"))
    scheduled = it.schedule()
    counts = dict(zip([it.table.sequence[r] for r in scheduled.rows], scheduled.counts.tolist(), strict=True))
    assert counts[again] == 1
    assert counts[other] == 9
    assert (again.cached_tokens, other.cached_tokens) == (8, 0)


def test_fork_shares_full_blocks_and_copies_the_partial_one():
    it = scheduler()
    family = [sequence(it, length=7) for _ in range(3)]
    family[0].siblings = family[1:]
    it.add(family[0])
    scheduled = it.schedule()
    assert scheduled.counts.tolist() == [6]
    assert not scheduled.draws.any()
    run(it, scheduled)
    scheduled = it.schedule()
    assert len(scheduled.copies) == 2
    assert sorted(run(it, scheduled), key=lambda s: s.arrival) == family
    assert len({seq.blocks[0] for seq in family}) == 1
    assert len({seq.blocks[1] for seq in family}) == 3
    assert it.pool.held == 4


def test_growth_preempts_the_latest_and_everyone_ends():
    it = scheduler(blocks=6)
    for i in range(3):
        it.add(sequence(it, length=4, answer=12, start=20 * i))
    ended = 0
    for _ in range(200):
        scheduled = it.schedule()
        if scheduled is None:
            break
        for seq in run(it, scheduled):
            if it.table.length[seq.slot] >= seq.limit:
                it.finish(seq)
                ended += 1
    assert ended == 3
    assert it.preemptions > 0
    assert it.pool.held == 0


def test_drafts_are_dropped_rather_than_preempting():
    it = scheduler(blocks=2, slots=1)
    it.add(seq := sequence(it, length=3, answer=5))
    run(it, it.schedule())
    it.table.drafted[seq.slot] = 3
    assert it.schedule().counts.tolist() == [4]
    it = scheduler(blocks=2, slots=2)
    it.add(seq := sequence(it, length=3, answer=5))
    run(it, it.schedule())
    it.add(sequence(it, length=3, answer=1, start=30))
    it.schedule()
    it.table.drafted[seq.slot] = 3
    scheduled = it.schedule()
    assert scheduled.counts[scheduled.rows == seq.slot].tolist() == [1]
    assert it.preemptions == 0


def test_waste_is_what_held_blocks_leave_empty():
    it = scheduler()
    it.add(sequence(it, length=6))
    run(it, it.schedule())
    assert it.waste() == pytest.approx(2 / 8)


def test_budget_without_room_for_prompts_is_refused():
    with pytest.raises(ValueError, match="token_budget 4 must exceed max_running 4"):
        Limits(4, 4, 64)


def test_admission_is_bounded_and_says_when_to_come_back():
    door = AdmissionQueue(max_running=2, max_queued=2)
    for _ in range(4):
        door.enter("a", 1, now=0.0)
    with pytest.raises(EngineOverloaded, match="2 of at most 2"):
        door.enter("a", 1, now=0.0)
    assert door.inside == 4
    for second in (1.0, 3.0, 5.0):
        door.leave("a", 1, now=second)
    assert door.retry_after(2, now=5.0) == pytest.approx(2 * 4 / 3)
    door.enter("a", 1, now=5.0)
    assert door.inside == 2


def test_what_cannot_begin_before_its_deadline_is_refused():
    door = AdmissionQueue(max_running=2, max_queued=100)
    for number in range(20):
        door.enter("a", 1, now=0.0)
        # Nothing has been measured yet.
        assert door.begins_in("a", 1) == 0.0 or number
    for second in range(1, 11):
        door.leave("a", 1, now=float(second))
    # One a second; eight wait.
    assert door.begins_in("a", 1) == pytest.approx(9 * 0.9)
    with pytest.raises(EngineOverloaded, match="after its deadline") as refused:
        door.enter("a", 1, now=10.0, deadline=14.0)
    assert refused.value.retry_after_s == pytest.approx(9 * 0.9 - 4)
    assert door.inside == 10
    # Whoever has nothing waiting takes turns with the one that has all of it.
    assert door.begins_in("b", 1) == pytest.approx(2 * 0.9)
    door.enter("b", 1, now=10.0, deadline=14.0)
    door.enter("a", 1, now=10.0)


def test_time_without_anybody_is_not_counted_as_slowness():
    door = AdmissionQueue(max_running=1, max_queued=100)
    for second in range(10):
        door.enter("a", 1, now=float(second))
        door.leave("a", 1, now=second + 0.5)
    for _ in range(4):
        door.enter("a", 1, now=10_000.0, deadline=10_010.0)
    assert door.begins_in("a", 1) == pytest.approx(4 * 0.45)


def test_one_tenant_cannot_fill_the_whole_queue():
    door = AdmissionQueue(max_running=1, max_queued=80)
    admitted = 0
    with pytest.raises(EngineOverloaded, match="kept for others"):
        for _ in range(81):
            door.enter("greedy", 1, now=0.0)
            admitted += 1
    assert 65 <= admitted < 81
    door.enter("modest", 1, now=0.0)
