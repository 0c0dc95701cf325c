"""The gated feed-forward layer's silu(gate) * up and, where wanted, float8 quantization of the result, in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..rows import FLOAT8_MAX, Rows, empty_rows
from .norms import store_row, warps_for


@triton.jit
def _silu_times(
    gate_up,
    out,
    scales,
    width,
    LARGEST: tl.constexpr,
    QUANTIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    gate = tl.load(gate_up + row * 2 * width + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + columns, mask=inside, other=0.0).to(tl.float32)
    store_row(row, columns, inside, gate * tl.sigmoid(gate) * up, out, scales, width, LARGEST, QUANTIZE)


def silu_times(gate_up: torch.Tensor, quantize: bool = False) -> Rows:
    """silu(gate) * up of rows that hold gate and up side by side; [T, 2K], contiguous, to [T, K]."""
    rows, width = len(gate_up), gate_up.shape[1] // 2
    out = empty_rows(gate_up, width, quantize)
    block = triton.next_power_of_2(width)
    _silu_times[(rows,)](
        gate_up,
        out.values,
        out.scales,
        width,
        LARGEST=FLOAT8_MAX,
        QUANTIZE=quantize,
        BLOCK=block,
        num_warps=warps_for(block),
    )
    return out
