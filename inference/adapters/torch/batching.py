"""From a plan to the arrays of one forward step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.core.scheduling.scheduled_step import ScheduledStep
from inference.core.scheduling.table import Rows, SlotTable

from .runner_api import StepBatch


@dataclass(frozen=True, slots=True)
class DrawnRows:
    """Whose logits a step returns, in order: the slot, and how many draft tokens stand before the drawn one."""

    slots: Rows  # [R]
    offsets: NDArray[np.int32]  # [R]


def step_batch(table: SlotTable, scheduled: ScheduledStep) -> tuple[StepBatch, DrawnRows]:
    """The batch of a plan. Drafts are read from where the table holds them, behind the known tokens."""
    rows, counts = scheduled.rows, scheduled.counts
    first = table.computed[rows]
    ends = np.cumsum(counts, dtype=np.int32)
    starts = np.concatenate((np.zeros(1, np.int32), ends))
    if ends[-1] == len(rows):
        flat, positions = rows, first
    else:
        flat = np.repeat(rows, counts)
        positions = np.arange(ends[-1], dtype=np.int32) + np.repeat(first - starts[:-1], counts)
    after = first + counts
    width = -(-int(after.max()) // table.block_size)
    drawn, logits_rows = _drawn(table, scheduled, ends)
    batch = StepBatch(
        token_ids=table.tokens[flat, positions],
        positions=positions,
        query_starts=starts,
        context_lens=after,
        block_tables=table.blocks[rows, :width],
        logits_rows=logits_rows,
        adapter_ids=table.adapter[rows],
    )
    return batch, drawn


def _drawn(table: SlotTable, scheduled: ScheduledStep, ends: NDArray[np.int32]) -> tuple[DrawnRows, NDArray[np.int32]]:
    """Each drawing sequence's last row, and with drafts also those before it that the drafts follow."""
    slots = scheduled.rows[scheduled.draws]
    last = ends[scheduled.draws] - 1
    drafted = table.drafted[slots]
    if not drafted.any():
        return DrawnRows(slots, np.zeros(len(slots), np.int32)), last
    wanted = drafted + 1
    begins = np.cumsum(wanted) - wanted
    offsets = (np.arange(int(wanted.sum())) - np.repeat(begins, wanted)).astype(np.int32)
    return DrawnRows(np.repeat(slots, wanted), offsets), np.repeat(last - drafted, wanted) + offsets
