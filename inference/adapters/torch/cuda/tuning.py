"""Which way each matrix product goes on this device: the library's or the skinny kernel's, measured when a model loads.

Products of the same size are timed together, over all layers' weights in turn, so that none is found in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from triton.runtime.errors import OutOfResources

from .kernels.skinny import Shape
from .linear import Choices, Linear, rows_for

# By the most rows that they are tried for; the widest tile of rows is 64.
CANDIDATES: dict[int, tuple[Shape, ...]] = {
    16: (
        Shape(strip=16, depth=256, warps=4, stages=4),
        Shape(strip=32, depth=256, warps=4, stages=4),
        Shape(strip=16, depth=512, warps=4, stages=4),
        Shape(strip=32, depth=128, split=4, warps=4, stages=5),
        Shape(strip=64, depth=128, warps=4, stages=4),
    ),
    64: (
        Shape(strip=64, depth=128, warps=4, stages=4),
        Shape(strip=64, depth=128, split=4, warps=4, stages=4),
        Shape(strip=128, depth=128, split=2, warps=8, stages=3),
    ),
}
# The kernel must win by this much: it takes host time of its own where no graph replays it.
_MARGIN = 0.97
_REPLAYS = 3


def tune(products: Sequence[Linear], choices: Choices, sizes: Sequence[int], device: torch.device) -> None:
    """Time every size of product at every batch size of `sizes` up to 64, and write the winners to `choices`."""
    groups: dict[tuple[int, int, str], list[Linear]] = {}
    for product in products:
        groups.setdefault(product.size, []).append(product)
    for rows in (size for size in sizes if size <= max(CANDIDATES)):
        candidates = next(shapes for most, shapes in CANDIDATES.items() if rows <= most)
        for size, group in groups.items():
            key = (rows, *size)
            best = _seconds(group, rows, device)
            winner = None
            for shape in candidates:
                choices.shapes[key] = shape
                took = _seconds(group, rows, device)
                if took < best * _MARGIN:
                    best, winner = took, shape
            if winner is None:
                del choices.shapes[key]
            else:
                choices.shapes[key] = winner


def _seconds(group: Sequence[Linear], rows: int, device: torch.device) -> float:
    """One pass over the group's weights, replayed as a graph: without the host's share.

    Infinite for a shape that wants more shared memory or registers than the device has.
    """
    dtype = torch.float32 if group[0].size[2] == "float32" else torch.bfloat16
    x = rows_for(group[0], torch.randn(rows, group[0].size[1], device=device).to(dtype))
    try:
        for product in group:
            product(x)
        torch.cuda.synchronize(device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for product in group:
                product(x)
    except OutOfResources:
        return float("inf")
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # torch's
    graph.replay()
    begin.record()
    for _ in range(_REPLAYS):
        graph.replay()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000 / _REPLAYS
