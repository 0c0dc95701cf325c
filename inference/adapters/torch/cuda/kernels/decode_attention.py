"""Attention of single new tokens over paged KV memory, many sequences at once.

One program reads one kv head of one part of one sequence's context, for all query heads that share it; the parts are
joined by their log-sum-exps. Sources: PagedAttention (Kwon et al., 2023) for the memory, Flash-Decoding (Dao et al.,
2023) for the split.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ..memory import Pages

# tl.dot wants at least this many rows; query heads beyond the group's are padding.
_MIN_ROWS = 16
_LOG2_E = 1.4426950408889634
_MAX_SPLITS = 32


@dataclass(frozen=True, slots=True)
class Contexts:
    """Where the sequences of a step lie. All int32, on the device.

    Sequence s owns flat rows starts[s]:starts[s+1] and has lengths[s] tokens in memory; its page table begins at
    tables[s * width[0]].
    """

    starts: torch.Tensor
    lengths: torch.Tensor
    tables: torch.Tensor
    width: torch.Tensor


@triton.jit
def _decode(
    queries,
    keys,
    values,
    members,
    starts,
    lengths,
    tables,
    width,
    out,
    partial,
    peaks,
    scale,
    WINDOW: tl.constexpr,
    SPLITS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    split = tl.program_id(2)
    member = tl.load(members + index)
    row = tl.load(starts + member).to(tl.int64)
    length = tl.load(lengths + member)
    begin = 0
    if WINDOW > 0:
        begin = tl.maximum(length - WINDOW, 0)
    # Parts of equal length, whole blocks but for the last.
    span = tl.cdiv(tl.cdiv(length - begin, SPLITS), BLOCK) * BLOCK
    first = begin + split * span
    last = tl.minimum(first + span, length)
    table = tables + member.to(tl.int64) * tl.load(width)
    lane = tl.arange(0, ROWS)
    column = tl.arange(0, HEAD_DIM)
    real = lane < GROUP
    heads = KV_HEADS * GROUP
    place = (row * heads + head * GROUP + lane)[:, None] * HEAD_DIM + column[None, :]
    query = tl.load(queries + place, mask=real[:, None], other=0.0)
    peak = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    gathered = tl.zeros([ROWS, HEAD_DIM], tl.float32)
    for start in range(first, last, BLOCK):
        position = start + tl.arange(0, BLOCK)
        inside = position < last
        page = tl.load(tables_at(table, position, PAGE), mask=inside, other=0).to(tl.int64)
        slot = ((page * KV_HEADS + head) * PAGE + position % PAGE) * HEAD_DIM
        key = tl.load(keys + slot[:, None] + column[None, :], mask=inside[:, None], other=0.0).to(query.dtype)
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        score = tl.where(inside[None, :], score, float("-inf"))
        higher = tl.maximum(peak, tl.max(score, 1))
        fade = tl.exp2(peak - higher)
        weight = tl.exp2(score - higher[:, None])
        total = total * fade + tl.sum(weight, 1)
        value = tl.load(values + slot[:, None] + column[None, :], mask=inside[:, None], other=0.0).to(query.dtype)
        gathered = gathered * fade[:, None] + tl.dot(weight.to(query.dtype), value, input_precision="ieee")
        peak = higher
    if SPLITS == 1:
        tl.store(out + place, (gathered / tl.maximum(total, 1e-30)[:, None]).to(out.dtype.element_ty), real[:, None])
    else:
        part = (index * SPLITS + split) * heads + head * GROUP + lane
        tl.store(partial + part[:, None] * HEAD_DIM + column[None, :], gathered, real[:, None])
        tl.store(peaks + part * 2, peak, real)
        tl.store(peaks + part * 2 + 1, total, real)


@triton.jit
def tables_at(table, position, PAGE: tl.constexpr):
    """Where the page number of a position is written."""
    return table + position // PAGE


@triton.jit
def _join(
    partial,
    peaks,
    members,
    starts,
    out,
    SPLITS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
):
    index = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    row = tl.load(starts + tl.load(members + index)).to(tl.int64)
    split = tl.arange(0, SPLITS)
    column = tl.arange(0, HEAD_DIM)
    part = (index * SPLITS + split) * HEADS + head
    peak = tl.load(peaks + part * 2)
    total = tl.load(peaks + part * 2 + 1)
    highest = tl.max(peak, 0)
    # A padding row has no context at all: every peak is -inf.
    share = tl.where(peak == float("-inf"), 0.0, tl.exp2(peak - highest))
    gathered = tl.load(partial + part[:, None] * HEAD_DIM + column[None, :])
    result = tl.sum(gathered * share[:, None], 0) / tl.maximum(tl.sum(total * share, 0), 1e-30)
    tl.store(out + (row * HEADS + head) * HEAD_DIM + column, result.to(out.dtype.element_ty))


def splits_for(sequences: int, kv_heads: int, processors: int) -> int:
    """Parts of each context: a power of two such that about four programs fall to every processor."""
    wanted = max(1, 4 * processors // (sequences * kv_heads))
    return min(_MAX_SPLITS, 1 << (wanted.bit_length() - 1))


def decode_attention(
    queries: torch.Tensor,
    pages: Pages,
    members: torch.Tensor,
    contexts: Contexts,
    out: torch.Tensor,
    *,
    scale: float,
    window: int,
    splits: int,
) -> None:
    """Attend for the first row of each sequence in `members` [N]; queries and out [T, heads, d], in place.

    `window` positions back are seen, 0 = all. A sequence of length 0 gets zeros.
    """
    heads, head_dim = queries.shape[1:]
    kv_heads = pages.keys.shape[1]
    group, count = heads // kv_heads, len(members)
    partial = peaks = None
    if splits > 1:
        partial = torch.empty((count, splits, heads, head_dim), dtype=torch.float32, device=queries.device)
        peaks = torch.empty((count, splits, heads, 2), dtype=torch.float32, device=queries.device)
    _decode[(count, kv_heads, splits)](
        queries,
        pages.keys,
        pages.values,
        members,
        contexts.starts,
        contexts.lengths,
        contexts.tables,
        contexts.width,
        out,
        partial,
        peaks,
        scale * _LOG2_E,
        WINDOW=window,
        SPLITS=splits,
        KV_HEADS=kv_heads,
        GROUP=group,
        ROWS=max(_MIN_ROWS, triton.next_power_of_2(group)),
        HEAD_DIM=head_dim,
        PAGE=pages.keys.shape[2],
        BLOCK=64,
        num_warps=4,
        num_stages=3,
    )
    if splits > 1:
        _join[(count, heads)](
            partial, peaks, members, contexts.starts, out, SPLITS=splits, HEADS=heads, HEAD_DIM=head_dim, num_warps=1
        )
