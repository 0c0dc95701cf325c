"""A step with prompts or drafts in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.core.scheduling.cost import StepCost, Work
from inference.core.scheduling.prompts import Prompt, PromptSharing
from inference.core.scheduling.scheduled_step import Limits, ScheduledStep
from inference.core.scheduling.table import Rows, SlotTable

# What a step without answers in it may take of `step_s`, and what prompts get of it at least, whatever answers take.
ALONE, PROMPTS_SHARE = 2.0, 0.25


def mixed_step(
    limits: Limits,
    table: SlotTable,
    rows: Rows,
    todo: NDArray[np.int32],
    *,
    forking: NDArray[np.bool_],
    cost: StepCost,
    sharing: PromptSharing,
) -> ScheduledStep:
    """Single tokens first, then drafted sequences, then chunks of prompts in what time is left.

    `todo` and `forking`, with an entry for each of `rows`, say how many known tokens are not in KV memory, and whether
    others will fork off the sequence once its prompt but for the last token is.
    """
    drafted = table.drafted[rows]
    decoding = (todo == 1) & ~forking
    counts = np.where(decoding, 1 + drafted, 0).astype(np.int32)
    work = Work(answers=int(counts.sum()), read=int((table.length[rows] + drafted)[decoding].sum()))
    prompts, places = [], []
    for i in np.flatnonzero(~decoding).tolist():
        seq, computed = table.sequence[rows[i]], int(table.computed[rows[i]])
        # A sequence that others will fork off stops short of its prompt's last token.
        wanted = int(todo[i]) if not forking[i] else int(table.prompt_length[rows[i]]) - 1 - computed
        if seq is not None and wanted > 0:
            prompts.append(Prompt(seq, computed, wanted))
            places.append(i)
    whole = limits.step_s if work.answers else ALONE * limits.step_s
    seconds = max(whole - cost.of(work), PROMPTS_SHARE * whole)
    for chunk in sharing.share(prompts, seconds, max(0, limits.token_budget - work.answers)):
        counts[places[chunk.place]] = chunk.tokens
        work += Work.chunk(prompts[chunk.place].computed, chunk.tokens)
    chosen = np.flatnonzero(counts)
    chosen = chosen[np.lexsort((counts[chosen], ~decoding[chosen]))]
    draws = decoding | ((counts == todo) & ~forking)
    return ScheduledStep(rows[chosen], counts[chosen], draws[chosen], work)
