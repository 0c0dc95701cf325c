"""KV memory on the device, cut into pages as the scheduler's blocks are.

A page holds the keys (or values) of 16 positions, each kv head's side by side, so that what a program of the attention
kernels reads of a page is one run of bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inference.adapters.torch.loading import ModelConfig
from inference.adapters.torch.runner_api import BLOCK_SIZE


@dataclass(frozen=True, slots=True)
class Pages:
    """One layer's keys and values, each [pages, kv heads, 16, head size]."""

    keys: torch.Tensor
    values: torch.Tensor


class DevicePages:
    """Pages of all layers. One more than asked for: what padding rows write goes to the last one."""

    def __init__(self, config: ModelConfig, num_blocks: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (config.layers, 2, num_blocks + 1, config.kv_heads, BLOCK_SIZE, config.head_dim)
        self._memory = torch.zeros(shape, dtype=dtype, device=device)
        self.scrap_slot = num_blocks * BLOCK_SIZE

    def layer(self, index: int) -> Pages:
        """The pages of one layer."""
        return Pages(self._memory[index, 0], self._memory[index, 1])

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """Copy block src to block dst in all layers, for each (src, dst) in turn."""
        for source, target in pairs:
            self._memory[:, :, target].copy_(self._memory[:, :, source])
