"""A step's tokens to their embeddings. A token may still be on the device alone, drawn by the step before."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _embed(table, tokens, sources, drawn, out, width, scale, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    source = tl.load(sources + row)
    token = tl.load(tokens + row).to(tl.int64)
    if source >= 0:
        token = tl.load(drawn + source)
    column = tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(table + token * width + column, mask=inside, other=0.0).to(tl.float32) * scale
    tl.store(out + row * width + column, value.to(out.dtype.element_ty), mask=inside)


def embed(
    table: torch.Tensor, tokens: torch.Tensor, sources: torch.Tensor, drawn: torch.Tensor, scale: float
) -> torch.Tensor:
    """Rows [T, K] of table [vocab, K] for tokens [T] (int32); for those with source >= 0, for drawn[source] (int64)."""
    out = torch.empty((len(tokens), table.shape[1]), dtype=table.dtype, device=table.device)
    width = table.shape[1]
    block = triton.next_power_of_2(width)
    _embed[(len(tokens),)](table, tokens, sources, drawn, out, width, scale, BLOCK=block, num_warps=4)
    return out
