"""A few rows times a large matrix, bound by reading the matrix: bfloat16, float32 or float8 weights.

One program multiplies a strip of the matrix's rows; with a split, a part of the strip's width, and a second kernel adds
the parts in a fixed order, so that the same rows give the same bits in every run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ..rows import Rows


@dataclass(frozen=True, slots=True)
class Shape:
    """How the kernel cuts its work: weight rows and columns a program takes at once, and parts of the width."""

    strip: int
    depth: int
    split: int = 1
    warps: int = 4
    stages: int = 4


@triton.jit
def _skinny(
    x,
    weight,
    bias,
    x_scales,
    weight_scales,
    out,
    rows,
    height,
    width,
    SPLIT: tl.constexpr,
    SCALED: tl.constexpr,
    BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    STRIP: tl.constexpr,
    DEPTH: tl.constexpr,
):
    strip = tl.program_id(0)
    part = tl.program_id(1)
    row = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    real = row < rows
    unit = strip * STRIP + tl.arange(0, STRIP)
    known = unit < height
    column = tl.arange(0, DEPTH)
    total = tl.zeros([ROWS, STRIP], tl.float32)
    share = tl.cdiv(tl.cdiv(width, SPLIT), DEPTH) * DEPTH
    for first in range(part * share, tl.minimum((part + 1) * share, width), DEPTH):
        inside = first + column < width
        a = tl.load(
            x + row.to(tl.int64)[:, None] * width + first + column[None, :],
            mask=real[:, None] & inside[None, :],
            other=0.0,
        )
        b = tl.load(
            weight + unit.to(tl.int64)[:, None] * width + first + column[None, :],
            mask=known[:, None] & inside[None, :],
            other=0.0,
            eviction_policy="evict_first",
        )
        total = tl.dot(a, tl.trans(b), total, input_precision="ieee")
    place = row.to(tl.int64)[:, None] * height + unit[None, :]
    mask = real[:, None] & known[None, :]
    if SPLIT > 1:
        tl.store(out + part.to(tl.int64) * rows * height + place, total, mask=mask)
    else:
        total = finish(total, row, real, unit, known, bias, x_scales, weight_scales, SCALED, BIAS)
        tl.store(out + place, total.to(out.dtype.element_ty), mask=mask)


@triton.jit
def finish(
    total,
    row,
    real,
    unit,
    known,
    bias,
    x_scales,
    weight_scales,
    SCALED: tl.constexpr,
    BIAS: tl.constexpr,
):
    """A tile of products with its scales and its bias."""
    if SCALED:
        total *= tl.load(x_scales + row, mask=real, other=0.0)[:, None]
        total *= tl.load(weight_scales + unit, mask=known, other=0.0)[None, :]
    if BIAS:
        total += tl.load(bias + unit, mask=known, other=0.0).to(tl.float32)[None, :]
    return total


@triton.jit
def _add_parts(
    parts,
    bias,
    x_scales,
    weight_scales,
    out,
    rows,
    height,
    SPLIT: tl.constexpr,
    SCALED: tl.constexpr,
    BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = unit < height
    place = row[:, None] * height + unit[None, :]
    total = tl.zeros([1, BLOCK], tl.float32)
    for part in tl.static_range(SPLIT):
        at = (part * rows + row)[:, None] * height + unit[None, :]
        total += tl.load(parts + at, mask=known[None, :], other=0.0)
    total = finish(total, row, row >= 0, unit, known, bias, x_scales, weight_scales, SCALED, BIAS)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=known[None, :])


def skinny_product(
    x: Rows,
    weight: torch.Tensor,
    weight_scales: torch.Tensor | None,
    bias: torch.Tensor | None,
    out_dtype: torch.dtype,
    shape: Shape,
) -> torch.Tensor:
    """X [T, K] times weight [N, K] transposed, plus bias [N]; float8 on both sides when there are scales [N]."""
    rows, (height, width) = len(x.values), weight.shape
    out = torch.empty((rows, height), dtype=out_dtype, device=weight.device)
    split = shape.split
    parts = out
    if split > 1:
        parts = torch.empty((split, rows, height), dtype=torch.float32, device=weight.device)
    tile = min(64, max(16, triton.next_power_of_2(rows)))
    flags = {"SPLIT": split, "SCALED": weight_scales is not None, "BIAS": bias is not None}
    _skinny[(triton.cdiv(height, shape.strip), split, triton.cdiv(rows, tile))](
        x.values,
        weight,
        bias,
        x.scales,
        weight_scales,
        parts,
        rows,
        height,
        width,
        **flags,
        ROWS=tile,
        STRIP=shape.strip,
        DEPTH=shape.depth,
        num_warps=shape.warps,
        num_stages=shape.stages,
    )
    if split > 1:
        block = 1024
        _add_parts[(rows, triton.cdiv(height, block))](
            parts, bias, x.scales, weight_scales, out, rows, height, **flags, BLOCK=block, num_warps=4
        )
    return out
