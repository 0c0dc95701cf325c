"""A step that failed, run again sequence by sequence: who made it fail ends, and nobody else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from .engine_log import engine_log
from .runner_api import ModelRunner, StepBatch

_log = engine_log()


def forward(
    runner: ModelRunner, batch: StepBatch, *, failed: Callable[[int, Exception], None], spare_block: Callable[[], int]
) -> torch.Tensor:
    """As ModelRunner.forward. `failed` hears of sequences, by their place in the batch, that cannot be run.

    Their rows of logits are zeros. Running a position again overwrites it, so the others are simply run once more. A
    runner that can run none of them, nor a token of our own in the spare block, is broken: raises what it raised.
    """
    try:
        return runner.forward(batch)
    except Exception as error:
        _log.error("engine.step_run_apart", error=type(error).__name__, sequences=len(batch.context_lens))
    errors: dict[int, Exception] = {}
    parts: list[torch.Tensor] = []
    for place in range(len(batch.context_lens)):
        part = only(batch, place)
        try:
            parts.append(runner.forward(part).clone())
        except Exception as cause:
            errors[place] = cause
            parts.append(torch.zeros(len(part.logits_rows), runner.spec.vocab_size))
    if len(errors) == len(parts):
        runner.forward(_one_token(spare_block()))
    for place, reason in errors.items():
        failed(place, reason)
    device = next((part.device for place, part in enumerate(parts) if place not in errors), parts[0].device)
    order = np.argsort(np.concatenate([_rows_of(batch, place) for place in range(len(parts))]), kind="stable")
    return torch.cat([part.to(device) for part in parts])[torch.from_numpy(order).to(device)]


def _rows_of(batch: StepBatch, place: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Which of the batch's rows of logits are those of the sequence at `place`."""
    first, end = batch.query_starts[place], batch.query_starts[place + 1]
    return np.flatnonzero((batch.logits_rows >= first) & (batch.logits_rows < end))


def only(batch: StepBatch, place: int) -> StepBatch:
    """The part of a batch that is about one sequence."""
    first, end = int(batch.query_starts[place]), int(batch.query_starts[place + 1])
    return StepBatch(
        token_ids=batch.token_ids[first:end],
        positions=batch.positions[first:end],
        query_starts=np.array([0, end - first], np.int32),
        context_lens=batch.context_lens[place : place + 1],
        block_tables=batch.block_tables[place : place + 1],
        logits_rows=(batch.logits_rows[_rows_of(batch, place)] - first).astype(np.int32),
        adapter_ids=batch.adapter_ids[place : place + 1],
    )


def _one_token(block: int) -> StepBatch:
    zero, one = np.zeros(1, np.int32), np.ones(1, np.int32)
    return StepBatch(zero, zero, np.array([0, 1], np.int32), one, np.array([[block]], np.int32), zero, zero)
