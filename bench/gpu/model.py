"""A model with the shapes of Llama 3 8B and random weights, made on the device: speed needs nothing more."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inference.adapters.torch.loading import Checkpoint, ModelConfig
from inference.adapters.torch.loading.checkpoint import expected_shapes
from inference.adapters.torch.loading.weights import Grouped
from inference.core.sizing import WEIGHT_BYTES

# From the model's public config.json, without its rope scaling (Llama 3, not 3.1).
LLAMA3_8B = ModelConfig(
    architecture="llama",
    name="Llama-3-8B shapes",
    layers=32,
    hidden=4096,
    intermediate=14336,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocab_size=128256,
    context_length=8192,
    norm_eps=1e-5,
    rope_theta=500000.0,
    eos_ids=(128001,),
    attention_scale=128**-0.5,
    windows=(0,) * 32,
)


@dataclass(frozen=True, slots=True)
class RandomWeight:
    """A weight that is drawn when it is asked for, and kept nowhere."""

    shape: tuple[int, ...]
    device: torch.device
    bits: int = 16

    def dense(self) -> torch.Tensor:
        """Norms are ones; the rest is small enough that logits stay finite."""
        if len(self.shape) == 1:
            return torch.ones(self.shape, dtype=torch.bfloat16, device=self.device)
        return torch.empty(self.shape, dtype=torch.bfloat16, device=self.device).normal_(std=0.02)

    def grouped(self) -> Grouped | None:
        """No integer codes."""
        return None


def random_checkpoint(config: ModelConfig, device: torch.device) -> Checkpoint:
    """A whole model of random weights."""
    weights = {name: RandomWeight(shape, device) for name, shape in expected_shapes(config).items()}
    return Checkpoint(config, weights, "random")


def bytes_per_step(config: ModelConfig, precision: str) -> int:
    """Weights that one decode step must read: every layer's and the output layer's, which is held in more bits."""
    shapes = expected_shapes(config)
    layers = sum(torch.Size(shape).numel() for name, shape in shapes.items() if name.startswith("layers."))
    return int(layers * WEIGHT_BYTES[precision] + config.vocab_size * config.hidden * _table_bytes(precision))


def embedding_bytes(config: ModelConfig, precision: str) -> int:
    """The input embedding, of which a step reads a few rows."""
    return int(config.vocab_size * config.hidden * _table_bytes(precision))


def _table_bytes(precision: str) -> float:
    return WEIGHT_BYTES["int8" if precision in ("int4", "int8") else "bfloat16"]


def kv_bytes_per_token(config: ModelConfig, kv_precision: str) -> int:
    """Keys and values of one token over all layers."""
    return config.kv_values_per_token() * (1 if kv_precision == "fp8" else 2)
