"""Mixtures of experts in torch: which experts a token passes, and each expert's rows computed together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

# BLAS sums a product of one or two rows in another order than one of more, and which tokens share an expert with a row
# is chance: a row's result must not depend on them.
_FEWEST_ROWS = 16


@dataclass(frozen=True, slots=True)
class Routing:
    """Who passes which expert: `experts` and `shares`, [T, k]. A row's own, whatever the others are."""

    experts: torch.Tensor
    shares: torch.Tensor


def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Rows x [T, in] times weight [out, in], each row's result the same however many rows there are."""
    missing = _FEWEST_ROWS - len(x)
    return F.linear(x, weight) if missing <= 0 else F.linear(F.pad(x, (0, 0, 0, missing)), weight)[: len(x)]


def route(x: torch.Tensor, gate: torch.Tensor, active: int, *, normalized: bool) -> Routing:
    """The `active` most probable experts of each row, x [T, hidden] and gate [experts, hidden]."""
    probabilities = product(x, gate).softmax(dim=-1, dtype=torch.float32)
    shares, experts = probabilities.topk(active, dim=-1)
    if normalized:
        shares = shares / shares.sum(dim=-1, keepdim=True)
    return Routing(experts, shares.to(x.dtype))


def mixed(x: torch.Tensor, routing: Routing, run: Callable[[int, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The sum of each row's experts by their shares, [T, hidden]; `run` is called once for each expert that has rows.

    Experts are added in the order of their numbers, so that a row's sum does not depend on the other rows.
    """
    width = routing.experts.shape[1]
    order = routing.experts.flatten().argsort(stable=True)
    shares = routing.shares.flatten()[order]
    output = torch.zeros_like(x)
    start = 0
    for expert, count in enumerate(routing.experts.flatten().bincount().tolist()):
        if count:
            rows = order[start : start + count] // width
            output.index_add_(0, rows, run(expert, x[rows]) * shares[start : start + count, None])
        start += count
    return output
