"""What a model is: the numbers and switches that a forward pass needs, whatever file they were read from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .errors import ModelError
from .rope import Frequencies, RopeScaling, plain_frequencies, stretch

Architecture = Literal["llama", "qwen2", "qwen3", "gemma3", "mixtral", "qwen2moe", "qwen3moe", "phi3"]

# No published decoder has a tenth of it; a number from a broken file must not be taken for memory.
MOST_LAYERS = 4096


@dataclass(frozen=True, slots=True)
class Experts:
    """Feed-forward layers of which each token passes a few parts, chosen by a router's softmax.

    Sources: Shazeer et al., "Outrageously Large Neural Networks", 2017; Jiang et al., "Mixtral of Experts", 2024.
    """

    count: int
    # How many a token passes, and how wide each is.
    active: int
    intermediate: int
    # The layers that have experts; the others are ordinary.
    layers: frozenset[int]
    # The chosen experts' probabilities are divided by their sum.
    normalized: bool
    # Width of the expert that every token passes, through a gate of its own; 0: there is none.
    shared_intermediate: int = 0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder-only transformer with grouped-query attention, rotary positions and gated feed-forward layers.

    Raises ModelError for numbers that no such network can have.
    """

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
    # Dimensions of a head that are rotated, the first ones; 0: all.
    rotated: int = 0
    # What the rotated dimensions are multiplied by. Where all are, `attention_scale` has it and this is 1.
    rotation_scale: float = 1.0
    activation: Literal["silu", "gelu_tanh"] = "silu"
    # RMS norm of each head's query and key before the rotation (Qwen 3, Gemma 3).
    qk_norm: bool = False
    # Norms after attention and feed-forward as well as before them (Gemma 3).
    post_norms: bool = False
    embedding_scale: float = 1.0
    # What query-key products are multiplied by.
    attention_scale: float = 1.0
    # The limit c of logits: x becomes c * tanh(x / c); 0: none.
    logit_softcap: float = 0.0
    # One entry a layer: how many positions back a token sees, itself included; 0 = all.
    windows: tuple[int, ...] = ()
    # The output layer shares the embedding's weights.
    tied: bool = False
    # None: every feed-forward layer is ordinary.
    experts: Experts | None = None
    # The projections that have a bias, as "self_attn.q_proj"; None: whichever the file has one for.
    biases: frozenset[str] | None = None

    def __post_init__(self) -> None:
        counts = ("layers", "hidden", "intermediate", "heads", "kv_heads", "head_dim", "vocab_size", "context_length")
        for name in counts:
            if getattr(self, name) < 1:
                raise ModelError(f"{self.name}: {name} is {getattr(self, name)}")
        for name in ("norm_eps", "rope_theta", "attention_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ModelError(f"{self.name}: {name} is {getattr(self, name)}")
        if self.heads % self.kv_heads:
            raise ModelError(f"{self.name}: {self.heads} heads cannot share {self.kv_heads} key-value heads")
        if self.experts is not None and not 0 < self.experts.active <= self.experts.count:
            raise ModelError(f"{self.name}: {self.experts.active} of {self.experts.count} experts for a token")
        beyond = next((token for token in self.eos_ids if not 0 <= token < self.vocab_size), None)
        if beyond is not None:
            raise ModelError(f"{self.name}: eos_token_id {beyond} is none of {self.vocab_size} tokens")
        self._check_rotation()

    def _check_rotation(self) -> None:
        if self.rotary_dims % 2 or not 0 < self.rotary_dims <= self.head_dim:
            raise ModelError(
                f"{self.name}: {self.rotary_dims} of a head's {self.head_dim} dimensions cannot be rotated"
            )
        scaling = self.rope_scaling or RopeScaling("linear")
        factors = scaling.factors
        if factors and len(factors) != self.rotary_dims // 2:
            raise ModelError(f"{self.name}: {len(factors)} rope factors for {self.rotary_dims // 2} frequencies")
        if not all(0 < factor < math.inf for factor in (scaling.factor, *factors)):
            raise ModelError(f"{self.name}: rope factors that are not above 0")

    @property
    def group(self) -> int:
        """Query heads that share one key-value head."""
        return self.heads // self.kv_heads

    @property
    def rotary_dims(self) -> int:
        """Dimensions of a head that are rotated."""
        return self.rotated or self.head_dim

    def kv_values_per_token(self) -> int:
        """Numbers that one token's keys and values are, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    def has_experts(self, layer: int) -> bool:
        """Whether the layer's feed-forward part is experts."""
        return self.experts is not None and layer in self.experts.layers

    def only_in_torch(self) -> str | None:
        """What this model has that the kernels have not, in a few words; None: nothing."""
        if self.experts is not None:
            return "a mixture of experts"
        if self.rotary_dims != self.head_dim:
            return f"{self.rotary_dims} rotated dimensions of {self.head_dim}"
        return "soft-capped logits" if self.logit_softcap else None

    def inverse_frequencies(self, layer: int) -> Frequencies:
        """The layer's rotary frequencies in radians a position, [rotary_dims / 2]."""
        local = self.windows[layer] > 0 and self.rope_theta_local is not None
        theta = self.rope_theta_local if local and self.rope_theta_local is not None else self.rope_theta
        frequencies = plain_frequencies(theta, self.rotary_dims)
        return frequencies if local or self.rope_scaling is None else stretch(frequencies, self.rope_scaling, theta)
