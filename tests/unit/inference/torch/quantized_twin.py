"""The native kernels' arithmetic in torch: what they are held to, operation by operation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from inference.adapters.torch.loading import load_checkpoint
from inference.adapters.torch.loading.weights import GROUP, quantize
from inference.adapters.torch.network import TorchNetwork
from inference.adapters.torch.paged_attention import PagedKV, StepLayout
from inference.adapters.torch.runner_api import StepBatch


def round_inputs(x: torch.Tensor) -> torch.Tensor:
    """Each 32 inputs rounded to 8 bits against their largest."""
    groups = x.unflatten(-1, (-1, GROUP))
    scales = groups.abs().amax(dim=-1, keepdim=True) / 127.0
    return (torch.round(groups / scales.clamp(min=1e-30)) * scales).flatten(-2)


class QuantizedTwin:
    """A model with weights rounded as the kernels hold them and inputs rounded as they round them, in float32."""

    def __init__(self, folder: Path, precision: str, num_blocks: int) -> None:
        checkpoint = load_checkpoint(folder)
        network = self.network = _Network(checkpoint, torch.device("cpu"), torch.float32)
        network.precision = precision
        for name, weight in network._weights.items():
            if weight.dim() == 2 and precision == "bfloat16":
                network._weights[name] = weight.bfloat16().float()
            elif weight.dim() == 2:
                wide = name in ("embed_tokens.weight", "lm_head.weight") or precision == "int8"
                rounded = quantize(weight.numpy(), 8 if wide else 4)
                network._weights[name] = torch.from_numpy(rounded.dense())
        self.memory = HalfKV(checkpoint.config, num_blocks, torch.float32, torch.device("cpu"))

    def forward(self, batch: StepBatch) -> torch.Tensor:
        return self.network.forward(batch, self.memory, {})


class HalfKV(PagedKV):
    """Keys and values rounded to float16, as the kernels store them."""

    def attend(self, layer: int, layout: StepLayout, qkv: Any, scale: float, window: int) -> torch.Tensor:
        q, k, v = qkv
        return super().attend(layer, layout, (q, k.half().float(), v.half().float()), scale, window)


class _Network(TorchNetwork):
    precision = "int8"

    def product(self, x: torch.Tensor, name: str) -> torch.Tensor:
        inputs = x.bfloat16().float() if self.precision == "bfloat16" else round_inputs(x)
        return F.linear(inputs, self._weights[name])
