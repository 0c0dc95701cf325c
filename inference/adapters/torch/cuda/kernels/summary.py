"""Greedy choice and confidence out of logits, one pass over them: each program sums up a part of a row, one joins."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from inference.adapters.torch.runner_api import LogitsSummary

_PART = 4096
# Fields of a part: largest, second largest, sum of exponentials, sum of logits times them; all against its largest.
_FIELDS = 4


@triton.jit
def _parts(logits, numbers, places, width, PARTS: tl.constexpr, PART: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    column = part * PART + tl.arange(0, PART)
    value = tl.load(logits + row * width + column, mask=column < width, other=float("-inf"))
    best, place = tl.max(value, 0, return_indices=True)
    second = tl.max(tl.where(column == part * PART + place, float("-inf"), value), 0)
    # A part that is masked altogether weighs nothing.
    base = tl.where(best == float("-inf"), 0.0, best)
    weight = tl.exp(value - base)
    to = numbers + (row * PARTS + part) * 4
    tl.store(to, best)
    tl.store(to + 1, second)
    tl.store(to + 2, tl.sum(weight, 0))
    tl.store(to + 3, tl.sum(tl.where(weight > 0, weight * value, 0.0), 0))
    tl.store(places + row * PARTS + part, part * PART + place)


@triton.jit(do_not_specialize=["rows"])
def _joined(
    numbers,
    places,
    best_out,
    floats,
    rows,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, BLOCK)
    inside = part < PARTS
    source = numbers + (row * PARTS + part) * 4
    value = tl.load(source, mask=inside, other=float("-inf"))
    best, winner = tl.max(value, 0, return_indices=True)
    seconds = tl.load(source + 1, mask=inside, other=float("-inf"))
    second = tl.max(tl.where(part == winner, seconds, value), 0)
    share = tl.where(value == float("-inf"), 0.0, tl.exp(value - best))
    mass = tl.sum(tl.load(source + 2, mask=inside, other=0.0) * share, 0)
    mean = tl.sum(tl.load(source + 3, mask=inside, other=0.0) * share, 0) / mass
    logsumexp = best + tl.log(mass)
    tl.store(best_out + row, tl.load(places + row * PARTS + winner).to(tl.int64))
    tl.store(floats + row, best - logsumexp)
    tl.store(floats + rows + row, best - second)
    # The entropy is the log-sum-exp less the mean logit.
    tl.store(floats + 2 * rows + row, logsumexp - mean)
    tl.store(floats + 3 * rows + row, logsumexp)


def summarize(logits: torch.Tensor) -> LogitsSummary:
    """See ModelRunner.summarize; logits contiguous."""
    rows, width = logits.shape
    parts = triton.cdiv(width, _PART)
    numbers = torch.empty((rows, parts, _FIELDS), dtype=torch.float32, device=logits.device)
    places = torch.empty((rows, parts), dtype=torch.int32, device=logits.device)
    best = torch.empty(rows, dtype=torch.int64, device=logits.device)
    floats = torch.empty((4, rows), dtype=torch.float32, device=logits.device)
    _parts[(rows, parts)](logits, numbers, places, width, PARTS=parts, PART=_PART, num_warps=8)
    _joined[(rows,)](numbers, places, best, floats, rows, PARTS=parts, BLOCK=triton.next_power_of_2(parts), num_warps=1)
    return LogitsSummary(best, floats[0], floats[1], floats[2], floats[3])
