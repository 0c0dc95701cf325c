"""Rows of activations on their way into a matrix product: as they are, or in 8 bits with a scale each."""

from __future__ import annotations

from dataclasses import dataclass

import torch

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0


@dataclass(frozen=True, slots=True)
class Rows:
    """`values` [T, K]; with `scales` [T] (float32) row t stands for values[t] * scales[t]."""

    values: torch.Tensor
    scales: torch.Tensor | None = None


def empty_rows(like: torch.Tensor, width: int, quantize: bool) -> Rows:
    """Room for as many rows as `like` has, in its dtype or in float8."""
    shape = (len(like), width)
    if not quantize:
        return Rows(torch.empty(shape, dtype=like.dtype, device=like.device))
    values = torch.empty(shape, dtype=FLOAT8, device=like.device)
    return Rows(values, torch.empty(len(like), dtype=torch.float32, device=like.device))
