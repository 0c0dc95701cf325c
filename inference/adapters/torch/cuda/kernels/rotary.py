"""From a step's fused query-key-value rows to rotated queries, and keys and values in their pages: one pass.

Halves are paired, as Hugging Face's Llama has it. Queries and keys get their own norm first where the model has one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl

from inference.adapters.torch.loading import ModelConfig

from ..memory import Pages


@triton.jit
def _rotate_and_store(
    qkv,
    queries,
    keys,
    values,
    positions,
    slots,
    angles,
    query_norm,
    key_norm,
    eps,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAGE: tl.constexpr,
    NORM: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    half: tl.constexpr = HEAD_DIM // 2
    at = tl.arange(0, half)
    source = qkv + (token * (HEADS + 2 * KV_HEADS) + head) * HEAD_DIM
    first = tl.load(source + at)
    second = tl.load(source + half + at)
    slot = tl.load(slots + token).to(tl.int64)
    if head >= HEADS + KV_HEADS:
        place = values + (((slot // PAGE) * KV_HEADS + head - HEADS - KV_HEADS) * PAGE + slot % PAGE) * HEAD_DIM
        tl.store(place + at, first.to(values.dtype.element_ty))
        tl.store(place + half + at, second.to(values.dtype.element_ty))
    else:
        a, b = first.to(tl.float32), second.to(tl.float32)
        if NORM:
            inverse = tl.rsqrt((tl.sum(a * a, 0) + tl.sum(b * b, 0)) / HEAD_DIM + eps)
            norm = query_norm if head < HEADS else key_norm
            # Rounded as a norm of its own would be.
            a = (a * inverse * tl.load(norm + at).to(tl.float32)).to(first.dtype).to(tl.float32)
            b = (b * inverse * tl.load(norm + half + at).to(tl.float32)).to(first.dtype).to(tl.float32)
        turn = angles + tl.load(positions + token).to(tl.int64) * HEAD_DIM
        cos, sin = tl.load(turn + at), tl.load(turn + half + at)
        turned_a, turned_b = a * cos - b * sin, b * cos + a * sin
        if head < HEADS:
            query = queries + (token * HEADS + head) * HEAD_DIM
            tl.store(query + at, turned_a.to(queries.dtype.element_ty))
            tl.store(query + half + at, turned_b.to(queries.dtype.element_ty))
        else:
            key = keys + (((slot // PAGE) * KV_HEADS + head - HEADS) * PAGE + slot % PAGE) * HEAD_DIM
            tl.store(key + at, turned_a.to(keys.dtype.element_ty))
            tl.store(key + half + at, turned_b.to(keys.dtype.element_ty))


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """Weights [head size] of the norms that each head's query and key get before the rotation."""

    query: torch.Tensor
    key: torch.Tensor
    eps: float


class Rotary:
    """Cosines and sines of every position that the model was made for, float32 [context, head size]."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._config = config
        frequencies = torch.from_numpy(np.asarray(config.inverse_frequencies(0), np.float32)).to(device)
        angles = torch.arange(config.context_length, device=device, dtype=torch.float32)[:, None] * frequencies
        self._angles = torch.cat((angles.cos(), angles.sin()), dim=1)

    def apply(
        self, qkv: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor, pages: Pages, norms: HeadNorms | None
    ) -> torch.Tensor:
        """Rotated queries [T, heads, d] of qkv [T, (heads + 2 kv heads) * d]; keys and values go to `slots` [T]."""
        c = self._config
        queries = torch.empty((len(qkv), c.heads, c.head_dim), dtype=qkv.dtype, device=qkv.device)
        _rotate_and_store[(len(qkv), c.heads + 2 * c.kv_heads)](
            qkv,
            queries,
            pages.keys,
            pages.values,
            positions,
            slots,
            self._angles,
            norms.query if norms is not None else None,
            norms.key if norms is not None else None,
            norms.eps if norms is not None else 0.0,
            HEADS=c.heads,
            KV_HEADS=c.kv_heads,
            HEAD_DIM=c.head_dim,
            PAGE=pages.keys.shape[2],
            NORM=norms is not None,
            num_warps=1,
        )
        return queries
