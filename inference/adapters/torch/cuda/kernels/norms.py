"""Residual add, root mean square norm and, where wanted, float8 quantization of the result: one pass over each row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..rows import FLOAT8_MAX, Rows, empty_rows


@triton.jit
def store_row(row, columns, inside, value, out, scales, width, LARGEST: tl.constexpr, QUANTIZE: tl.constexpr):
    """Store one row, in 8 bits under its own scale where QUANTIZE says so."""
    if QUANTIZE:
        scale = tl.maximum(tl.max(tl.abs(value), 0), 1e-10) / LARGEST
        tl.store(scales + row, scale)
        # Rounding may push the largest a little beyond what the format holds.
        value = tl.minimum(tl.maximum(value / scale, -LARGEST), LARGEST)
    tl.store(out + row * width + columns, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _add_norm(
    x,
    residual,
    weight,
    out,
    scales,
    width,
    eps,
    ADD: tl.constexpr,
    LARGEST: tl.constexpr,
    QUANTIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    value = tl.load(residual + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        value += tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(residual.dtype.element_ty)
        tl.store(residual + row * width + columns, rounded, mask=inside)
        value = rounded.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(value * value, 0) / width + eps)
    value = value * inverse * tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    store_row(row, columns, inside, value, out, scales, width, LARGEST, QUANTIZE)


def add_norm(
    x: torch.Tensor | None, residual: torch.Tensor, weight: torch.Tensor, eps: float, quantize: bool = False
) -> Rows:
    """Add `x` to `residual` in place (both [T, K], contiguous), and give the norm of the sum times `weight` [K]."""
    rows, width = residual.shape
    out = empty_rows(residual, width, quantize)
    block = triton.next_power_of_2(width)
    _add_norm[(rows,)](
        x,
        residual,
        weight,
        out.values,
        out.scales,
        width,
        eps,
        ADD=x is not None,
        LARGEST=FLOAT8_MAX,
        QUANTIZE=quantize,
        BLOCK=block,
        num_warps=warps_for(block),
    )
    return out


@triton.jit
def _quantize(x, out, scales, width, LARGEST: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    value = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    store_row(row, columns, inside, value, out, scales, width, LARGEST, True)


def quantize_rows(x: torch.Tensor) -> Rows:
    """Float8 with a scale for each row of x [T, K], contiguous."""
    rows, width = x.shape
    out = empty_rows(x, width, quantize=True)
    block = triton.next_power_of_2(width)
    _quantize[(rows,)](x, out.values, out.scales, width, LARGEST=FLOAT8_MAX, BLOCK=block, num_warps=warps_for(block))
    return out


def warps_for(block: int) -> int:
    """Warps for a program that holds a row of `block` values in registers."""
    return max(1, min(16, block // 512))
