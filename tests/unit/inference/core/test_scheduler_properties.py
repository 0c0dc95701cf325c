"""Whatever arrives, forks, is cancelled or evicted: no block leaks, and no sequence reads what is not its own."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inference.core.blocks import BlockPool
from inference.core.scheduling.scheduled_step import Limits
from inference.core.scheduling.scheduler import Scheduler
from inference.core.scheduling.sequence import Sequence

BLOCK = 4
VOCAB = 3  # Few tokens, so that prefixes are shared often.


class KVMemory:
    """What a runner would write: each position holds a digest of every token up to it."""

    def __init__(self, blocks: int) -> None:
        self.cells = np.full((blocks, BLOCK), -1, np.int64)

    def run(self, scheduler: Scheduler, scheduled) -> None:
        for source, destination in scheduled.copies:
            self.cells[destination] = self.cells[source]
        table = scheduler.table
        for row, count in zip(scheduled.rows, scheduled.counts, strict=True):
            start = table.computed[row]
            for position in range(start, start + count):
                before = self.read(table, row, position - 1) if position else 0
                block = table.blocks[row, position // BLOCK]
                assert block >= 0, "a token runs without a block to write to"
                self.cells[block, position % BLOCK] = digest(before, table.tokens[row, position])

    def read(self, table, row: int, position: int) -> int:
        return int(self.cells[table.blocks[row, position // BLOCK], position % BLOCK])


def digest(before: int, token: int) -> int:
    return hash((int(before), int(token))) & 0x7FFFFFFF


def digest_of(tokens) -> int:
    total = 0
    for token in tokens:
        total = digest(total, token)
    return total


class Serving(RuleBasedStateMachine):
    @initialize(
        blocks=st.integers(8, 24),
        slots=st.integers(1, 5),
        budget=st.integers(1, 12),
        share=st.booleans(),
        seed=st.integers(0, 99),
    )
    def build(self, blocks, slots, budget, share, seed) -> None:
        self.pool = BlockPool(blocks, BLOCK, share_prefixes=share)
        self.scheduler = Scheduler(Limits(slots, slots + budget, context_length=30), self.pool)
        self.memory = KVMemory(blocks)
        self.rng = np.random.default_rng(seed)
        self.alive: dict[int, Sequence] = {}
        self.family: dict[int, list[Sequence]] = {}
        self.arrived = 0

    @rule(
        prompt=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=14),
        answer=st.integers(1, 12),
        choices=st.integers(1, 3),
        emitted=st.integers(0, 3),
        tenant=st.sampled_from(["a", "b"]),
        priority=st.integers(0, 1),
    )
    def arrive(self, prompt, answer, choices, emitted, tenant, priority) -> None:
        emitted = min(emitted, answer - 1)
        family = []
        for index in range(choices):
            tokens = np.array(prompt + [index % VOCAB] * emitted, np.int32)
            limit = min(len(prompt) + answer, self.scheduler.context_length)
            root = self.pool.root(tenant, "")
            family.append(Sequence(tokens, len(prompt), limit, root, tenant, priority, owner=list(tokens)))
        if len(family[0].tokens) >= family[0].limit:
            return
        family[0].siblings = family[1:]
        self.scheduler.add(family[0])
        for seq in family:
            self.alive[seq.arrival] = seq
            self.family[seq.arrival] = family

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def cancel(self, data) -> None:
        arrival = data.draw(st.sampled_from(sorted(self.alive)))
        for seq in self.family[arrival]:
            self.scheduler.cancel(seq)
            self.alive.pop(seq.arrival, None)
            assert seq.slot == -1
            assert seq.blocks == []

    @rule(steps=st.integers(1, 6), draft=st.booleans())
    def step(self, steps, draft) -> None:
        for _ in range(steps):
            self.one_step(draft)

    def one_step(self, draft: bool) -> None:
        scheduler, table = self.scheduler, self.scheduler.table
        rows = scheduler.rows
        if draft and len(rows):
            decoding = rows[table.length[rows] - table.computed[rows] == 1]
            for row, room in zip(decoding, scheduler.draft_capacity(decoding), strict=True):
                table.drafted[row] = min(2, room)
                table.tokens[row, table.length[row] : table.length[row] + table.drafted[row]] = 1
        scheduled = scheduler.schedule()
        if scheduled is None:
            assert not scheduler.busy
            return
        assert scheduled.counts.min() > 0, "a planned sequence runs at least one token"
        self.memory.run(scheduler, scheduled)
        drafted = table.drafted[scheduled.rows].copy()
        accepted = np.array([self.rng.integers(0, d + 1) for d in drafted], np.int32)
        sequences = [table.sequence[row] for row in scheduled.rows]
        scheduler.update(scheduled, accepted)
        for i, seq in enumerate(sequences):
            row = scheduled.rows[i]
            known = list(table.tokens[row, : table.length[row]])
            assert known[: len(seq.owner)] == seq.owner, "a sequence lost a token"
            computed = table.computed[row]
            if accepted[i] == 0 and computed:
                got = self.memory.read(table, row, computed - 1)
                assert got == digest_of(known[:computed]), "a sequence read what is not its own"
            if scheduled.draws[i]:
                for token in [1] * int(accepted[i]) + [int(self.rng.integers(0, VOCAB))]:
                    scheduler.append(np.array([row]), np.array([token], np.int32))
                    seq.owner.append(token)
                if table.length[row] >= table.limit[row]:
                    scheduler.finish(seq)
                    del self.alive[seq.arrival]

    @invariant()
    def blocks_are_accounted_for(self) -> None:
        if not hasattr(self, "pool"):
            return
        held = [block for seq in self.scheduler.running for block in seq.blocks]
        assert len(set(held)) == self.pool.held
        for block in set(held):
            assert self.pool.references(block) == held.count(block)
        assert len(self.scheduler.running) + self.scheduler.table.free_slots == self.scheduler.limits.max_running

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for _ in range(2000):
            if not self.scheduler.busy:
                break
            self.one_step(draft=False)
        assert not self.alive, "a sequence starved"
        assert self.pool.held == 0, "blocks leaked"
        assert self.scheduler.table.free_slots == self.scheduler.limits.max_running


TestServing = Serving.TestCase
TestServing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
