"""Attention of chunks of prompts, of any lengths side by side, over paged KV memory that holds their keys already.

Source: FlashAttention-2 (Dao, 2023): a program holds a tile of queries and walks over the keys that it may see.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..memory import Pages
from .decode_attention import Contexts, tables_at

TILE = 64
_LOG2_E = 1.4426950408889634


@triton.jit
def _prefill(
    queries,
    keys,
    values,
    tile_members,
    tile_offsets,
    starts,
    lengths,
    tables,
    width,
    out,
    scale,
    WINDOW: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAGE: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    tile = tl.program_id(0)
    head = tl.program_id(1)
    kv_head = head // (HEADS // KV_HEADS)
    member = tl.load(tile_members + tile)
    offset = tl.load(tile_offsets + tile)
    start = tl.load(starts + member)
    count = tl.load(starts + member + 1) - start
    length = tl.load(lengths + member)
    table = tables + member.to(tl.int64) * tl.load(width)
    lane = tl.arange(0, TILE)
    column = tl.arange(0, HEAD_DIM)
    real = offset + lane < count
    # The chunk's last token is the context's last.
    here = length - count + offset + lane
    place = ((start + offset + lane).to(tl.int64) * HEADS + head)[:, None] * HEAD_DIM + column[None, :]
    query = tl.load(queries + place, mask=real[:, None], other=0.0)
    peak = tl.full([TILE], float("-inf"), tl.float32)
    total = tl.zeros([TILE], tl.float32)
    gathered = tl.zeros([TILE, HEAD_DIM], tl.float32)
    end = tl.minimum(length - count + offset + TILE, length)
    begin = 0
    if WINDOW > 0:
        begin = tl.maximum(length - count + offset - WINDOW + 1, 0) // BLOCK * BLOCK
    for first in range(begin, end, BLOCK):
        position = first + tl.arange(0, BLOCK)
        inside = position < end
        page = tl.load(tables_at(table, position, PAGE), mask=inside, other=0).to(tl.int64)
        slot = ((page * KV_HEADS + kv_head) * PAGE + position % PAGE) * HEAD_DIM
        key = tl.load(keys + slot[:, None] + column[None, :], mask=inside[:, None], other=0.0).to(query.dtype)
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        seen = position[None, :] <= here[:, None]
        if WINDOW > 0:
            seen = seen & (position[None, :] > here[:, None] - WINDOW)
        score = tl.where(seen, score, float("-inf"))
        higher = tl.maximum(peak, tl.max(score, 1))
        # A row that has seen nothing yet, as in the first block of a window, stays empty rather than undefined.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        fade = tl.exp2(peak - base)
        weight = tl.exp2(score - base[:, None])
        total = total * fade + tl.sum(weight, 1)
        value = tl.load(values + slot[:, None] + column[None, :], mask=inside[:, None], other=0.0).to(query.dtype)
        gathered = gathered * fade[:, None] + tl.dot(weight.to(query.dtype), value, input_precision="ieee")
        peak = higher
    result = gathered / tl.maximum(total, 1e-30)[:, None]
    tl.store(out + place, result.to(out.dtype.element_ty), mask=real[:, None])


def prefill_attention(
    queries: torch.Tensor,
    pages: Pages,
    tiles: tuple[torch.Tensor, torch.Tensor],
    contexts: Contexts,
    out: torch.Tensor,
    *,
    scale: float,
    window: int,
) -> None:
    """Attend for tiles of 64 consecutive rows, causally; queries and out [T, heads, d], in place.

    Tile i is rows tiles[1][i] to tiles[1][i] + 63 of what sequence tiles[0][i] runs in this step (int32). `window`
    positions back are seen, 0 = all.
    """
    heads, head_dim = queries.shape[1:]
    _prefill[(len(tiles[0]), heads)](
        queries,
        pages.keys,
        pages.values,
        *tiles,
        contexts.starts,
        contexts.lengths,
        contexts.tables,
        contexts.width,
        out,
        scale * _LOG2_E,
        WINDOW=window,
        HEADS=heads,
        KV_HEADS=pages.keys.shape[1],
        HEAD_DIM=head_dim,
        PAGE=pages.keys.shape[2],
        TILE=TILE,
        BLOCK=64,
        num_warps=4,
        num_stages=3,
    )
