"""The running sequences' numbers, one row a slot, so that a step is planned and booked with array operations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.core.scheduling.sequence import Sequence

Rows = NDArray[np.intp]


class SlotTable:
    """`slots` rows; a sequence occupies one from being scheduled until it ends or is preempted.

    Memory is touched only where tokens are written, so wide rows cost address space, not RAM.
    """

    def __init__(self, slots: int, context_length: int, block_size: int) -> None:
        self.block_size = block_size
        self.tokens = np.zeros((slots, context_length), np.int32)
        # Tokens that are known, tokens that are in KV memory, and the length to stop at.
        self.length = np.zeros(slots, np.int32)
        self.computed = np.zeros(slots, np.int32)
        self.limit = np.zeros(slots, np.int32)
        # Positions that the held blocks have room for, and full blocks whose hash is known.
        self.room = np.zeros(slots, np.int32)
        self.hashed = np.zeros(slots, np.int32)
        self.prompt_length = np.zeros(slots, np.int32)
        self.adapter = np.zeros(slots, np.int32)
        self.request_row = np.zeros(slots, np.intp)
        self.ignore_eos = np.zeros(slots, np.bool_)
        # Draft tokens that stand behind `length`, to be checked by the next step.
        self.drafted = np.zeros(slots, np.int32)
        self.blocks = np.full((slots, -(-context_length // block_size)), -1, np.int32)
        self.sequence: list[Sequence | None] = [None] * slots
        self._free = list(range(slots - 1, -1, -1))

    @property
    def free_slots(self) -> int:
        """Slots that nobody occupies."""
        return len(self._free)

    def enter(self, seq: Sequence, computed: int) -> None:
        """Give `seq` a slot; its blocks hold the first `computed` tokens."""
        slot = self._free.pop()
        known = len(seq.tokens)
        self.sequence[slot] = seq
        self.tokens[slot, :known] = seq.tokens
        self.length[slot] = known
        self.computed[slot] = computed
        self.limit[slot] = seq.limit
        self.hashed[slot] = len(seq.hashes)
        self.prompt_length[slot] = seq.prompt_length
        self.adapter[slot] = seq.adapter_slot
        self.request_row[slot] = seq.request_row
        self.ignore_eos[slot] = seq.ignore_eos
        self.drafted[slot] = 0
        seq.slot = slot
        self.map_blocks(seq)

    def leave(self, seq: Sequence) -> None:
        """Free the slot of `seq`, which keeps its tokens."""
        slot = seq.slot
        seq.tokens = self.tokens[slot, : self.length[slot]].copy()
        self.blocks[slot, : len(seq.blocks)] = -1
        self.room[slot] = 0
        self.computed[slot] = 0
        self.sequence[slot] = None
        seq.slot = -1
        self._free.append(slot)

    def map_blocks(self, seq: Sequence, first: int = 0) -> None:
        """Write the block table of `seq` from its block number `first` on."""
        held = len(seq.blocks)
        self.blocks[seq.slot, first:held] = seq.blocks[first:]
        self.room[seq.slot] = held * self.block_size
