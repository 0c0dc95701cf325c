"""Copies from the host to a device that nothing waits for. Free of Triton, as what every device imports must be."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray


def pinned(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """The array where `device` can fetch it by itself: the allocator keeps such a copy until the device has read it."""
    host = torch.from_numpy(values)
    return host.pin_memory() if device.type == "cuda" else host


def to_device(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy without waiting."""
    return pinned(values, device).to(device, non_blocking=True)
