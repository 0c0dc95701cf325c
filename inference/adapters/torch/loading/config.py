"""What a model is: the numbers and switches that a forward pass needs, whatever file they were read from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Architecture = Literal["llama", "qwen2", "qwen3", "gemma3"]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched for longer contexts.

    "linear" divides every frequency by `factor`. "llama3" (Llama 3.1) divides the low ones, keeps the high ones and
    blends between, by wavelength against `original_context`. "factors" divides frequency i by `factors[i]`, which is
    how GGUF files carry the result of "llama3".
    """

    kind: Literal["linear", "llama3", "factors"]
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192
    factors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder-only transformer with grouped-query attention, rotary positions and gated feed-forward layers."""

    architecture: Architecture
    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    norm_eps: float
    rope_theta: float
    eos_ids: tuple[int, ...]
    rope_scaling: RopeScaling | None = None
    # Base frequency of the layers with a sliding window; None: the same as the others, scaling included.
    rope_theta_local: float | None = None
    activation: Literal["silu", "gelu_tanh"] = "silu"
    # RMS norm of each head's query and key before the rotation (Qwen 3, Gemma 3).
    qk_norm: bool = False
    # Norms after attention and feed-forward as well as before them (Gemma 3).
    post_norms: bool = False
    embedding_scale: float = 1.0
    # What query-key products are multiplied by.
    attention_scale: float = 1.0
    # One entry a layer: how many positions back a token sees, itself included; 0 = all.
    windows: tuple[int, ...] = ()
    # The output layer shares the embedding's weights.
    tied: bool = False

    @property
    def group(self) -> int:
        """Query heads that share one key-value head."""
        return self.heads // self.kv_heads

    def kv_values_per_token(self) -> int:
        """Numbers that one token's keys and values are, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    def inverse_frequencies(self, layer: int) -> NDArray[np.float32]:
        """The layer's rotary frequencies in radians a position, [head_dim / 2]."""
        local = self.windows[layer] > 0 and self.rope_theta_local is not None
        theta = self.rope_theta_local if local and self.rope_theta_local is not None else self.rope_theta
        exponents = np.arange(0, self.head_dim, 2, dtype=np.float32) / np.float32(self.head_dim)
        frequencies = (1.0 / np.power(np.float32(theta), exponents)).astype(np.float32)
        return frequencies if local or self.rope_scaling is None else _stretch(frequencies, self.rope_scaling)


def _stretch(frequencies: NDArray[np.float32], scaling: RopeScaling) -> NDArray[np.float32]:
    if scaling.kind == "linear":
        return (frequencies / scaling.factor).astype(np.float32)
    if scaling.kind == "factors":
        return (frequencies / np.asarray(scaling.factors, dtype=np.float32)).astype(np.float32)
    wavelengths = 2 * math.pi / frequencies
    maximum = scaling.original_context / scaling.low_freq_factor
    minimum = scaling.original_context / scaling.high_freq_factor
    share = (scaling.original_context / wavelengths - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    blended = (1 - share) * frequencies / scaling.factor + share * frequencies
    stretched = np.where(wavelengths > maximum, frequencies / scaling.factor, blended)
    return np.where(wavelengths < minimum, frequencies, stretched).astype(np.float32)
