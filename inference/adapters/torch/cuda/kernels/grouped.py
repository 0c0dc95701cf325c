"""Matrix products with weights in 4 or 8 bits, in groups of 32 with a scale and a minimum each.

Weights are widened in registers on their way to the tensor cores and rounded to the rows' own dtype there, just as
`dequantize` rounds them for the library: both ways multiply by the same numbers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..grouped import GroupedWeight
from .skinny import Shape, add_parts, finish, tile_for

# 1.0 as bits. Passed to the kernels as a number: a second constant in one instruction would cost a second instruction.
_ONE = 0x3F800000


@triton.jit
def widen(words, pair, one, PLACE: tl.constexpr, BITS: tl.constexpr):
    """Weights [N, 32] in float32 of the codes that stand at place PLACE in `words` [N, 32]; `pair` is [N, 1].

    A code is masked into the upper bits of the mantissa of 1.0, which is exact and takes no conversion, and the scale
    takes its place there into account.
    """
    # In 4 bits two codes share a shift.
    low: tl.constexpr = 12 + PLACE % 2 * 4 if BITS == 4 else 15
    shift: tl.constexpr = 12 - PLACE // 2 * 8 if BITS == 4 else 15 - PLACE * 8
    moved = words << shift if shift >= 0 else words >> -shift
    value = (moved & (((1 << BITS) - 1) << low) | one).to(tl.float32, bitcast=True)
    scale = (pair & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32) * (1 << (23 - low))
    minimum = (pair >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return value * scale + (minimum - scale)


@triton.jit(do_not_specialize=["rows"])
def _grouped(
    x,
    words,
    pairs,
    bias,
    out,
    rows,
    height,
    width,
    blocks,
    one,
    BITS: tl.constexpr,
    SPLIT: tl.constexpr,
    BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    STRIP: tl.constexpr,
):
    groups: tl.constexpr = 32 // BITS
    part = tl.program_id(1)
    unit = tl.program_id(0) * STRIP + tl.arange(0, STRIP)
    row = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    known, real = unit < height, row < rows
    lane = tl.arange(0, 32)
    # The weights' rows come first: they are many, and the tensor cores take their first operand from registers.
    total = tl.zeros([STRIP, ROWS], tl.float32)
    share = tl.cdiv(blocks, SPLIT)
    for block in range(part * share, tl.minimum((part + 1) * share, blocks)):
        place = tl.cast(block, tl.int64) * height + unit
        held = tl.load(
            words + place[:, None] * 32 + lane[None, :],
            mask=known[:, None],
            other=0,
            eviction_policy="evict_first",
        )
        for i in tl.static_range(groups):
            group = block * groups + i
            pair = tl.load(pairs + tl.cast(group, tl.int64) * height + unit, mask=known, other=0)
            column = group * 32 + lane
            values = tl.load(
                x + row.to(tl.int64)[:, None] * width + column[None, :],
                mask=real[:, None] & (column < width)[None, :],
                other=0.0,
            )
            weight = widen(held, pair[:, None], one, i, BITS).to(values.dtype)
            total = tl.dot(weight, tl.trans(values), total, input_precision="ieee")
    turned = tl.trans(total)
    place = row.to(tl.int64)[:, None] * height + unit[None, :]
    mask = real[:, None] & known[None, :]
    if SPLIT > 1:
        tl.store(out + part.to(tl.int64) * rows * height + place, turned, mask=mask)
    else:
        turned = finish(turned, row, real, unit, known, bias, None, None, False, BIAS)
        tl.store(out + place, turned.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _dequantize(words, pairs, out, height, width, one, BITS: tl.constexpr, STRIP: tl.constexpr):
    groups: tl.constexpr = 32 // BITS
    block = tl.program_id(0)
    unit = tl.program_id(1) * STRIP + tl.arange(0, STRIP)
    known = unit < height
    lane = tl.arange(0, 32)
    place = block.to(tl.int64) * height + unit
    held = tl.load(words + place[:, None] * 32 + lane[None, :], mask=known[:, None], other=0)
    for i in tl.static_range(groups):
        group = block * groups + i
        pair = tl.load(pairs + group.to(tl.int64) * height + unit, mask=known, other=0)
        weight = widen(held, pair[:, None], one, i, BITS)
        column = group * 32 + lane
        target = out + unit.to(tl.int64)[:, None] * width + column[None, :]
        tl.store(target, weight.to(out.dtype.element_ty), mask=known[:, None] & (column < width)[None, :])


@triton.jit
def _embed_grouped(
    words,
    pairs,
    tokens,
    sources,
    drawn,
    out,
    height,
    width,
    factor,
    one,
    BLOCKS: tl.constexpr,
    BITS: tl.constexpr,
):
    groups: tl.constexpr = 32 // BITS
    row = tl.program_id(0).to(tl.int64)
    source = tl.load(sources + row)
    token = tl.load(tokens + row).to(tl.int64)
    if source >= 0:
        token = tl.load(drawn + source)
    block = tl.arange(0, BLOCKS)
    lane = tl.arange(0, 32)
    inside = block * groups * 32 < width
    place = block.to(tl.int64) * height + token
    held = tl.load(words + place[:, None] * 32 + lane[None, :], mask=inside[:, None], other=0)
    for i in tl.static_range(groups):
        group = block * groups + i
        pair = tl.load(pairs + group.to(tl.int64) * height + token, mask=inside, other=0)
        weight = widen(held, pair[:, None], one, i, BITS) * factor
        column = group[:, None] * 32 + lane[None, :]
        tl.store(out + row * width + column, weight.to(out.dtype.element_ty), mask=column < width)


def grouped_product(
    x: torch.Tensor, weight: GroupedWeight, bias: torch.Tensor | None, out_dtype: torch.dtype, shape: Shape
) -> torch.Tensor:
    """X [T, K], contiguous, times the weights [N, K] transposed, plus bias [N]."""
    rows, height = len(x), weight.height
    out = torch.empty((rows, height), dtype=out_dtype, device=x.device)
    split = shape.split
    parts = out
    if split > 1:
        parts = torch.empty((split, rows, height), dtype=torch.float32, device=x.device)
    tile = tile_for(rows, shape)
    _grouped[(triton.cdiv(height, shape.strip), split, triton.cdiv(rows, tile))](
        x,
        weight.words,
        weight.pairs,
        bias,
        parts,
        rows,
        height,
        weight.width,
        len(weight.words),
        _ONE,
        BITS=weight.bits,
        SPLIT=split,
        BIAS=bias is not None,
        ROWS=tile,
        STRIP=shape.strip,
        num_warps=shape.warps,
        num_stages=shape.stages,
    )
    if split > 1:
        add_parts(parts, out, bias)
    return out


def dequantize(weight: GroupedWeight, dtype: torch.dtype) -> torch.Tensor:
    """The weights [N, K] as numbers of `dtype`."""
    out = torch.empty((weight.height, weight.width), dtype=dtype, device=weight.words.device)
    strip = 64
    _dequantize[(len(weight.words), triton.cdiv(weight.height, strip))](
        weight.words,
        weight.pairs,
        out,
        weight.height,
        weight.width,
        _ONE,
        BITS=weight.bits,
        STRIP=strip,
        num_warps=4,
    )
    return out


def embed_grouped(
    table: GroupedWeight,
    tokens: torch.Tensor,
    sources: torch.Tensor,
    drawn: torch.Tensor,
    scale: float,
    dtype: torch.dtype,
) -> torch.Tensor:
    """As `embed` does, out of a table in groups."""
    out = torch.empty((len(tokens), table.width), dtype=dtype, device=tokens.device)
    _embed_grouped[(len(tokens),)](
        table.words,
        table.pairs,
        tokens,
        sources,
        drawn,
        out,
        table.height,
        table.width,
        float(scale),
        _ONE,
        BLOCKS=triton.next_power_of_2(len(table.words)),
        BITS=table.bits,
        num_warps=4,
    )
    return out
