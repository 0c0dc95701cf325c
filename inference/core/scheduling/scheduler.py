"""The scheduler: each step it says which tokens of which sequences run, and books what came out.

Continuous batching at token granularity. A step holds one token (and its drafts) of every decoding sequence and fills
what is left of its time with chunks of prompts, shared between tenants (`prompts`), as far as `cost` knows how long
they take, so that a long prompt never stalls the others. When blocks run out, the least deserving sequence
(`room.victim`) gives all of its blocks back and waits to be computed again.

The engine's thread owns it. No call blocks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.core.blocks import BlockPool, OutOfBlocksError
from inference.core.scheduling.cost import StepCost, Work
from inference.core.scheduling.mixing import mixed_step
from inference.core.scheduling.prompts import PromptSharing
from inference.core.scheduling.room import Room, victim
from inference.core.scheduling.scheduled_step import Limits, ScheduledStep
from inference.core.scheduling.sequence import Sequence
from inference.core.scheduling.shares import TenantShares
from inference.core.scheduling.table import Rows, SlotTable
from inference.core.scheduling.waiting import WaitingQueue


class Scheduler:
    """Owns the waiting queue, the slots and the blocks."""

    def __init__(self, limits: Limits, pool: BlockPool) -> None:
        # A sequence that runs alone must always fit.
        context = min(limits.context_length, pool.num_blocks * pool.block_size)
        self.context_length = context
        self.limits = limits
        self.pool = pool
        self.table = SlotTable(limits.max_running, context, pool.block_size)
        self.cost = StepCost()
        # What tenants got of the slots, booked when a sequence starts, and of the steps, booked as they are run.
        self._starts, self._steps = TenantShares(), TenantShares()
        self._prompts = PromptSharing(self.cost, self._steps)
        self._room = Room(pool, limits.max_running)
        self.waiting = WaitingQueue(self._starts)
        self.preemptions = 0
        self._running: list[Sequence] = []
        self._rows: Rows = np.empty(0, np.intp)
        self._forking: list[Sequence] = []
        # Sequences that share their last block with a fork and may have to copy it before they write.
        self._shared_tails: list[Sequence] = []
        self._copies: list[tuple[int, int]] = []
        self._arrivals = 0

    @property
    def running(self) -> list[Sequence]:
        """Sequences that hold a slot, in the order they got it."""
        return self._running

    @property
    def busy(self) -> bool:
        """Whether `plan` would have something to run."""
        return bool(self._running) or len(self.waiting) > 0

    @property
    def rows(self) -> Rows:
        """Slots of the running sequences."""
        return self._rows

    def add(self, seq: Sequence) -> None:
        """Queue a newcomer and with it its siblings."""
        for each in (seq, *seq.siblings):
            each.arrival = self._arrivals
            self._arrivals += 1
        there = {other.tenant for others in (self._running, self.waiting) for other in others}
        self._starts.enter(seq.tenant, there)
        self._steps.enter(seq.tenant, there)
        self.waiting.push(seq)

    def cancel(self, seq: Sequence) -> None:
        """Forget a sequence and its unforked siblings wherever they are, and free what they hold. Callable twice."""
        if seq.cancelled:
            return
        seq.cancelled = True
        for sibling in seq.siblings:
            sibling.cancelled = True
        if seq.slot >= 0:
            self._stop(seq)
        elif seq.arrival >= 0 and any(seq is other for other in self.waiting):
            self.waiting.remove(seq)

    def finish(self, seq: Sequence) -> None:
        """Free what a running sequence holds. Its full blocks stay known to the prefix cache."""
        self._stop(seq)

    def schedule(self) -> ScheduledStep | None:
        """Choose the next step's tokens; None when there is nothing to run. Blocks for them are held on return."""
        self._copies = []
        started: list[Sequence] = []
        self._fork_ready(started)
        self._start_waiting(started)
        # A newcomer may have found all of its prompt in the prefix cache.
        self._fork_ready(started)
        self._grow()
        if not self._running:
            return None
        table, rows = self.table, self._rows
        todo = table.length[rows] - table.computed[rows]
        if (todo == 1).all() and not self._forking and not table.drafted[rows].any():
            ones = np.ones(len(rows), np.int32)
            work = Work(answers=len(rows), read=int(table.length[rows].sum()))
            return ScheduledStep(rows, ones, ones.astype(np.bool_), work, self._copies, self._still_running(started))
        forking = np.isin(rows, [seq.slot for seq in self._forking])
        step = mixed_step(self.limits, table, rows, todo, forking=forking, cost=self.cost, sharing=self._prompts)
        step.copies, step.started = self._copies, self._still_running(started)
        return step

    def update(self, scheduled: ScheduledStep, accepted: NDArray[np.int32] | None = None) -> None:
        """Book that the planned tokens are in KV memory; of drafts only the first `accepted[i]` count."""
        table = self.table
        gained = scheduled.counts
        if accepted is not None:
            gained = gained - table.drafted[scheduled.rows] + accepted
        table.computed[scheduled.rows] += gained
        table.drafted[scheduled.rows] = 0
        size = self.pool.block_size
        for slot in scheduled.rows[table.computed[scheduled.rows] // size > table.hashed[scheduled.rows]]:
            seq = table.sequence[slot]
            if seq is not None:
                self._publish(seq)

    def append(self, rows: Rows, tokens: NDArray[np.int32]) -> None:
        """Add one drawn token each to the sequences in `rows`."""
        table = self.table
        table.tokens[rows, table.length[rows]] = tokens
        table.length[rows] += 1

    def draft_capacity(self, rows: Rows) -> NDArray[np.int32]:
        """How many draft tokens could stand behind each of `rows`: with the token drawn after them within the limit."""
        room: NDArray[np.int32] = self.table.limit[rows] - self.table.length[rows] - 1
        return np.maximum(room, 0)

    def waste(self) -> float:
        """Share of the held blocks' positions that hold no token."""
        held = self.pool.held * self.pool.block_size
        if not held:
            return 0.0
        rows = self._rows
        return max(0.0, float((self.table.room[rows] - self.table.computed[rows]).sum()) / held)

    def _still_running(self, started: list[Sequence]) -> list[Sequence]:
        return [seq for seq in started if seq.slot >= 0]

    def _start_waiting(self, started: list[Sequence]) -> None:
        while (seq := self._next_to_start()) is not None:
            self.waiting.remove(seq)
            started.append(seq)

    def _next_to_start(self) -> Sequence | None:
        """Start the most deserving waiting sequence that there is room for, if need be at a lower priority's cost."""
        waits: Sequence | None = None
        for seq in self.waiting.candidates(self._room.small):
            if waits is not None and (seq.priority < waits.priority or not self._room.small(seq)):
                continue
            while not self._start(seq, waits=waits is not None):
                lowest = victim(self._running)
                if waits is not None or lowest is None or lowest.priority >= seq.priority:
                    break
                self._preempt(lowest)
                return self._next_to_start()
            else:
                return seq
            waits = waits or seq
        return None

    def _start(self, seq: Sequence, *, waits: bool) -> bool:
        """Give `seq` a slot and blocks for all of its known tokens, some perhaps from the prefix cache."""
        if not self.table.free_slots or not self._room.worth_trying(seq, self._running):
            return False
        blocks, hashes = self.pool.match(seq.root, seq.tokens)
        size = self.pool.block_size
        fresh = -(-len(seq.tokens) // size) - len(blocks)
        if not self._room.fits(seq, fresh, self._running, waits=waits):
            self.pool.release(blocks)
            return False
        seq.blocks = blocks + self.pool.allocate(fresh)
        seq.hashes = hashes
        computed = len(blocks) * size
        seq.cached_tokens = max(seq.cached_tokens, min(computed, seq.prompt_length))
        self._enter(seq, computed)
        self._starts.charge(seq.tenant, self.cost.prompt(computed, len(seq.tokens)))
        if seq.siblings:
            self._forking.append(seq)
        return True

    def _enter(self, seq: Sequence, computed: int) -> None:
        self.table.enter(seq, computed)
        self._running.append(seq)
        self._rows = np.append(self._rows, seq.slot)

    def _fork_ready(self, started: list[Sequence]) -> None:
        """Fork the siblings of every sequence whose prompt is in KV memory but for its last token."""
        for seq in list(self._forking):
            if self.table.computed[seq.slot] < seq.prompt_length - 1:
                continue
            self._forking.remove(seq)
            siblings, seq.siblings = seq.siblings, []
            for sibling in siblings:
                if self.table.free_slots:
                    self._fork(seq, sibling)
                    started.append(sibling)
                else:
                    self.waiting.push_back(sibling)

    def _fork(self, seq: Sequence, sibling: Sequence) -> None:
        """Let `sibling` hold the blocks with the prompt's tokens but the last; a partial one is copied on write."""
        computed = seq.prompt_length - 1
        size = self.pool.block_size
        shared = seq.blocks[: -(-computed // size)]
        self.pool.share(shared)
        sibling.blocks = list(shared)
        sibling.hashes = seq.hashes[: computed // size]
        sibling.cached_tokens = computed
        self._enter(sibling, computed)
        if computed % size:
            self._shared_tails += [seq, sibling]

    def _grow(self) -> None:
        """Hold blocks for every running sequence's known tokens and drafts, preempting where they run out."""
        for seq in self._shared_tails:
            if seq.slot >= 0:
                self._own_tail(seq)
        self._shared_tails = []
        table = self.table
        rows = self._rows
        for slot in rows[table.length[rows] + table.drafted[rows] > table.room[rows]]:
            seq = table.sequence[slot]
            # An earlier turn of this loop may have preempted it.
            if seq is None or seq.slot != slot:
                continue
            wanted = self._blocks_wanted(seq)
            if wanted > self.pool.available:
                # Drafts are a guess: no sequence is preempted for them.
                table.drafted[slot] = 0
                wanted = self._blocks_wanted(seq)
            blocks = self._allocate(wanted, seq)
            if blocks is not None:
                seq.blocks += blocks
                table.map_blocks(seq, len(seq.blocks) - wanted)
                took = self.cost.answers(wanted * table.block_size, int(table.length[slot]) * wanted * table.block_size)
                self._starts.charge(seq.tenant, took)
                self._steps.charge(seq.tenant, took)

    def _blocks_wanted(self, seq: Sequence) -> int:
        tokens = int(self.table.length[seq.slot] + self.table.drafted[seq.slot])
        return -(-tokens // self.pool.block_size) - len(seq.blocks)

    def _own_tail(self, seq: Sequence) -> None:
        """Copy on write: replace the block that `seq` writes next when somebody else holds it too."""
        place = int(self.table.computed[seq.slot]) // self.pool.block_size
        tail = seq.blocks[place]
        if self.pool.references(tail) == 1:
            return
        fresh = self._allocate(1, seq)
        # Making room may have preempted the other holders; then the copy is harmless.
        if fresh is not None:
            seq.blocks[place] = fresh[0]
            self.table.map_blocks(seq, place)
            self._copies.append((tail, fresh[0]))
            self.pool.release([tail])

    def _allocate(self, count: int, seq: Sequence) -> list[int] | None:
        """Blocks for `seq`, at the cost of less deserving sequences; None when it was the least deserving itself."""
        while True:
            try:
                return self.pool.allocate(count)
            except OutOfBlocksError:
                least = victim(self._running)
                assert least is not None  # `seq` runs
                self._preempt(least)
                if least is seq:
                    return None

    def _preempt(self, seq: Sequence) -> None:
        seq.preemptions += 1
        self.preemptions += 1
        self._stop(seq)
        self.waiting.push_back(seq)

    def _stop(self, seq: Sequence) -> None:
        if seq in self._forking:
            self._forking.remove(seq)
        self._running.remove(seq)
        self._rows = self._rows[self._rows != seq.slot]
        if self._copies:
            # A block that goes back must not be written behind its next holder's back.
            self._copies = [copy for copy in self._copies if copy[1] not in seq.blocks]
        self.table.leave(seq)
        self.pool.release(seq.blocks)
        seq.blocks = []
        seq.hashes = []

    def _publish(self, seq: Sequence) -> None:
        """Tell the prefix cache of the blocks of `seq` that have become full."""
        table, size = self.table, self.pool.block_size
        full = int(table.computed[seq.slot]) // size
        for i in range(len(seq.hashes), full):
            parent = seq.hashes[-1] if seq.hashes else seq.root
            seq.hashes.append(self.pool.extend(parent, table.tokens[seq.slot, i * size : (i + 1) * size]))
            self.pool.publish(seq.blocks[i], seq.hashes[i])
        table.hashed[seq.slot] = full
