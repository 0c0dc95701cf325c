"""One layer's attention in the native kernels beside its torch twin."""

from __future__ import annotations

import ctypes

import numpy as np
import torch

from inference.adapters.torch.int8_memory import Int8KV
from inference.adapters.torch.loading import ModelConfig
from inference.adapters.torch.native_model import NativeModel
from inference.adapters.torch.native_runner import as_native
from inference.adapters.torch.paged_attention import StepLayout
from inference.adapters.torch.runner_api import StepBatch

from .quantized_twin import HalfKV


class Attention:
    """Both with memory of their own of 80 blocks; neither rotates, at frequencies of 0."""

    def __init__(self, library: ctypes.CDLL, config: ModelConfig, kept: str, kernels: str = "auto") -> None:
        zeros = np.zeros(config.head_dim // 2, np.float32)
        self._config = config
        self.native = NativeModel(library, config, 80, 2, kept, kernels=kernels)
        self.native.call("hr_set_rotation", 0, zeros, zeros.size, config.windows[0])
        self.twin = (Int8KV if kept == "int8" else HalfKV)(config, 80, torch.float32, torch.device("cpu"))

    def both(self, step: StepBatch, qkv: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """What the kernels and the twin make of queries, keys and values [T, heads, head size]."""
        scale, window = self._config.attention_scale, self._config.windows[0]
        return self.alone(step, qkv), self.twin.attend(0, StepLayout(step, torch.device("cpu")), qkv, scale, window)

    def alone(self, step: StepBatch, qkv: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """What the kernels make of them."""
        out = torch.empty_like(qkv[0])
        passed, _arrays = as_native(step)
        self.native.call("hr_attend", ctypes.byref(passed), 0, *(x.data_ptr() for x in qkv), out.data_ptr())
        return out


def shape(heads: int, kv_heads: int, head_dim: int, window: int = 0) -> ModelConfig:
    """A model of one layer of which only the attention counts."""
    widths = {"hidden": 32, "intermediate": 32, "vocab_size": 32, "context_length": 128}
    return ModelConfig(
        "llama", "shape", 1, **widths, heads=heads, kv_heads=kv_heads, head_dim=head_dim, norm_eps=1e-5,
        rope_theta=1e4, eos_ids=(), attention_scale=head_dim**-0.5, windows=(window,),
    )  # fmt: skip
