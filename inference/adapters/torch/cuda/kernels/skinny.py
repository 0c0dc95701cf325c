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
    """How a kernel cuts its work."""

    # Weight rows that a program takes, and how many columns at once; weights in groups bring their own depth.
    strip: int
    depth: int = 128
    # Parts of the width.
    split: int = 1
    warps: int = 4
    stages: int = 4
    # The most rows of x that a program takes.
    tile: int = 64


@triton.jit(do_not_specialize=["rows"])
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


@triton.jit(do_not_specialize=["rows"])
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
    tile = tile_for(rows, shape)
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
        SPLIT=split,
        SCALED=weight_scales is not None,
        BIAS=bias is not None,
        ROWS=tile,
        STRIP=shape.strip,
        DEPTH=shape.depth,
        num_warps=shape.warps,
        num_stages=shape.stages,
    )
    if split > 1:
        add_parts(parts, out, bias, x.scales, weight_scales)
    return out


def add_parts(
    parts: torch.Tensor,
    out: torch.Tensor,
    bias: torch.Tensor | None,
    x_scales: torch.Tensor | None = None,
    weight_scales: torch.Tensor | None = None,
) -> None:
    """Into out [T, N] the sum of parts [split, T, N], in a fixed order, with scales and bias."""
    split, rows, height = parts.shape
    block = 1024
    _add_parts[(rows, triton.cdiv(height, block))](
        parts,
        bias,
        x_scales,
        weight_scales,
        out,
        rows,
        height,
        SPLIT=split,
        SCALED=weight_scales is not None,
        BIAS=bias is not None,
        BLOCK=block,
        num_warps=4,
    )


def tile_for(rows: int, shape: Shape) -> int:
    """Rows of x that a program takes: a power of two, at least what tensor cores take."""
    return min(shape.tile, max(16, 1 << (rows - 1).bit_length()))
