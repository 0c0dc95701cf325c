"""What the device's memory really gives: a copy, read and write counted, in bytes a second."""

from __future__ import annotations

import torch

_BYTES = 2 << 30
_COPIES = 10


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second of large copies within the device's memory; the best of a few."""
    source = torch.empty(_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(_COPIES):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        best = max(best, 2 * _BYTES / (begin.elapsed_time(end) / 1000))
    return best
