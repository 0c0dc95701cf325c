"""Which way each matrix product goes on this device: the library's or the skinny kernel's, measured when a model loads.

Products of the same size are timed together, over all layers' weights in turn, so that none is found in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from triton.runtime.errors import OutOfResources, PTXASError

from .kernels.skinny import Shape
from .linear import Choices, GroupedLinear, Linear, rows_for
from .rows import Rows

# By the most rows that they are tried for.
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
# More rows than graphs have: for weights in groups, what is measured at so many holds for all above the graphs' sizes.
WIDE = 512
GROUPED_CANDIDATES: dict[int, tuple[Shape, ...]] = {
    16: (
        Shape(strip=64, stages=4),
        Shape(strip=128, stages=3),
        Shape(strip=64, split=4, stages=4),
        Shape(strip=128, split=4, stages=3),
        Shape(strip=64, split=8, stages=3),
    ),
    64: (
        Shape(strip=64, stages=2),
        Shape(strip=128, stages=2),
        Shape(strip=64, split=4, stages=2),
        Shape(strip=128, split=4, stages=2),
    ),
    WIDE: (
        Shape(strip=128, stages=2),
        Shape(strip=64, split=2, stages=2),
        Shape(strip=128, warps=8, stages=2, tile=128),
    ),
}
# The kernel must win by this much: it takes host time of its own where no graph replays it.
_MARGIN = 0.97
_REPLAYS = 3


def tune(products: Sequence[Linear], choices: Choices, sizes: Sequence[int], device: torch.device) -> None:
    """Time every size of product at the batch sizes that its kernel is made for, and write the winners to `choices`.

    `sizes`, ascending: of the batches that graphs are recorded for.
    """
    groups: dict[tuple[int, int, str], list[Linear]] = {}
    for product in products:
        groups.setdefault(product.size, []).append(product)
    choices.rows = (*sizes, WIDE)
    for size, group in groups.items():
        tried = GROUPED_CANDIDATES if isinstance(group[0], GroupedLinear) else CANDIDATES
        for rows in (count for count in choices.rows if count <= max(tried)):
            candidates = next(shapes for maximum, shapes in tried.items() if rows <= maximum)
            key = (rows, *size)
            x = rows_for(group[0], torch.randn(rows, size[1], device=device).to(group[0].dtype))
            best, winner = float("inf"), None
            for shape in (None, *candidates):
                choices.shapes[key] = shape
                took = _seconds(group, x)
                if took < best * _MARGIN:
                    best, winner = took, shape
            choices.shapes[key] = winner


def _seconds(group: Sequence[Linear], x: Rows) -> float:
    """One pass over the group's weights, replayed as a graph: without the host's share.

    Infinite for a shape that wants more shared memory or registers than the device has.
    """
    try:
        for product in group:
            product(x)
        # In memory of its own: a pool cannot be shared with a graph that is gone.
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for product in group:
                product(x)
    except (OutOfResources, PTXASError):
        return float("inf")
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # torch's
    graph.replay()
    begin.record()
    for _ in range(_REPLAYS):
        graph.replay()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000 / _REPLAYS
