"""KV memory in 8 bits, in torch: what the native kernels' own is held to, and what plain torch uses in its place."""

from __future__ import annotations

import math

import torch

from .loading import ModelConfig
from .paged_attention import PagedKV
from .runner_api import BLOCK_SIZE

_CODES = 127.0
_LARGEST_SCALE = torch.finfo(torch.float16).max


def spread(x: torch.Tensor) -> torch.Tensor:
    """Hadamard transform of the last dimension, in parts of the largest power of two that divides it.

    Queries and keys that are both transformed have the same products, and what stands out in one channel of a key (as
    Qwen's biases do) is spread over all of them, where it does not drown the others when they are rounded together.
    Source: Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", 2024.
    """
    size = x.shape[-1]
    part, stride = size & -size, 1
    while stride < part:
        first, second = x.reshape(*x.shape[:-1], -1, 2, stride).unbind(-2)
        x = torch.stack([first + second, first - second], dim=-2).flatten(-3)
        stride *= 2
    return x * (1 / math.sqrt(part))


def round_to_int8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and their float16 scales, one for each row of the last dimension: x is about codes * scale."""
    scales = (x.abs().amax(dim=-1) / _CODES).clamp(max=_LARGEST_SCALE).half()
    wide = scales.float()
    inverse = torch.where(wide > 0, 1 / wide, 0)
    return (x * inverse[..., None]).clamp(-_CODES, _CODES).round().to(torch.int8), scales


class Int8KV(PagedKV):
    """Codes [layers, 2, blocks * 16, kv heads, head size] and scales without the last dimension.

    Each position's key and value have a scale of their own in each head, so what is written is never rounded again.
    """

    def __init__(self, config: ModelConfig, num_blocks: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (config.layers, 2, num_blocks * BLOCK_SIZE, config.kv_heads)
        self._codes = torch.zeros((*shape, config.head_dim), dtype=torch.int8, device=device)
        self._scales = torch.zeros(shape, dtype=torch.float16, device=device)
        self._dtype = dtype

    def _tensors(self) -> list[torch.Tensor]:
        return [self._codes, self._scales]

    def _write(self, layer: int, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        for which, x in enumerate((spread(keys.float()), values.float())):
            self._codes[layer, which, slots], self._scales[layer, which, slots] = round_to_int8(x)

    def _read(self, layer: int, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes, scales = self._codes[layer][:, slots], self._scales[layer][:, slots]
        keys, values = (codes.float() * scales.float()[..., None]).to(self._dtype)
        return keys, values

    def _fitted(self, queries: torch.Tensor) -> torch.Tensor:
        return spread(queries.float()).to(queries.dtype)
