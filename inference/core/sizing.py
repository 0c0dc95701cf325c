"""What a model needs and what a device gives: memory, the devices that fit, and tokens per second to expect.

Everything follows from the model's own config. Memory is weights, KV cache, activations and a fixed overhead;
decoding reads all active weights and the KV cache of every sequence once a step, so its pace is bandwidth over bytes,
times the share of the bandwidth that engines are seen to reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GIB = 1024**3
# Bytes that one weight takes, scales of its group included.
WEIGHT_BYTES: Mapping[str, float] = {
    "float32": 4.0,
    "bfloat16": 2.0,
    "float16": 2.0,
    "fp8": 1.0,
    "int8": 1.0 + 4 / 32,
    "int4": 0.5 + 4 / 32,
}
# Bytes that one number of the KV cache takes. Int8 has a float16 scale for each key and each value of a head besides.
KV_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8": 1, "int8": 1}
_KV_SCALE_BYTES: Mapping[str, int] = {"int8": 2}
# Runtime, kernels, graphs and fragments on each accelerator.
DEVICE_OVERHEAD = int(1.0 * GIB)
HOST_OVERHEAD = int(0.35 * GIB)
# Share of a device's memory that may be planned for, and of its bandwidth that decoding reaches.
USABLE_MEMORY = 0.92
BANDWIDTH_SHARE = 0.70
# What a split over more devices keeps of each one's pace: every layer waits twice for all of them.
SPLIT_SHARE: Mapping[int, float] = {1: 1.0, 2: 0.88, 4: 0.80, 8: 0.70}


class SizingError(ValueError):
    """A config that says too little or nothing to size by; the message names what is missing."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The numbers of a decoder that its memory follows from."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab_size: int
    context_length: int
    tied: bool
    # Mixture of experts: how many there are, how many a token passes, how wide each is, and the width of those that
    # every token passes. 0 experts: an ordinary feed-forward layer.
    experts: int = 0
    active_experts: int = 0
    expert_intermediate: int = 0
    shared_intermediate: int = 0
    # Layers whose feed-forward is ordinary though others have experts.
    dense_layers: int = 0
    # Layers that see a sliding window only, and its length.
    windowed_layers: int = 0
    window: int = 0

    @property
    def attention_weights(self) -> int:
        """Weights of one layer's attention and norms."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.hidden * (2 * queries + 2 * keys) + 2 * self.hidden

    def feed_forward_weights(self, *, active: bool) -> int:
        """Weights of all feed-forward layers; `active`: only those that one token passes."""
        ordinary = 3 * self.hidden * self.intermediate
        if not self.experts:
            return self.layers * ordinary
        count = self.active_experts if active else self.experts
        routed = 3 * self.hidden * (count * self.expert_intermediate + self.shared_intermediate)
        routed += self.hidden * self.experts
        return self.dense_layers * ordinary + (self.layers - self.dense_layers) * routed

    @property
    def embedding_weights(self) -> int:
        """Weights of one vocabulary table."""
        return self.vocab_size * self.hidden

    @property
    def weights(self) -> int:
        """All weights."""
        tables = self.embedding_weights * (1 if self.tied else 2)
        return self.layers * self.attention_weights + self.feed_forward_weights(active=False) + tables + self.hidden

    @property
    def active_weights(self) -> int:
        """Weights that one token's pass reads; of the embedding only its row, so just the output table counts."""
        body = self.layers * self.attention_weights + self.feed_forward_weights(active=True)
        return body + self.embedding_weights + self.hidden

    def weights_read(self, sequences: int) -> int:
        """Weights that a step over `sequences` reads: with experts, those that any of them is expected to pass."""
        if not self.experts:
            return self.active_weights
        # Each token misses an expert with this chance, if routing is even.
        missed = (1 - self.active_experts / self.experts) ** sequences
        routed = (self.layers - self.dense_layers) * 3 * self.hidden * self.expert_intermediate
        return self.active_weights + int(routed * (self.experts * (1 - missed) - self.active_experts))

    def kv_values(self, tokens: int) -> int:
        """Numbers that the keys and values of a sequence of `tokens` are, over all layers."""
        per_layer = 2 * self.kv_heads * self.head_dim
        windowed = min(tokens, self.window) if self.window else tokens
        return per_layer * ((self.layers - self.windowed_layers) * tokens + self.windowed_layers * windowed)


@dataclass(frozen=True, slots=True)
class Workload:
    """What is to be served: `concurrency` sequences of up to `context` tokens; steps of up to `step_tokens`."""

    context: int
    concurrency: int
    weights: str = "bfloat16"
    kv: str = "bfloat16"
    step_tokens: int = 2048
    # Share of the context that sequences hold on average, for the pace (not for the memory).
    filled: float = 0.5


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes: weights and KV on all devices together, activations and overhead on each."""

    weights: int
    kv: int
    activations: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it on a single device."""
        return self.weights + self.kv + self.activations + self.overhead


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """Read a Hugging Face `config.json`. Raises SizingError, naming the field that is missing."""
    text = config.get("text_config", config)

    def number(*names: str, default: int | None = None) -> int:
        for name in names:
            if isinstance(text.get(name), int):
                return int(text[name])
        if default is None:
            raise SizingError(f"config: {names[0]} is missing")
        return default

    hidden, heads, layers = number("hidden_size"), number("num_attention_heads"), number("num_hidden_layers")
    experts = number("num_local_experts", "num_experts", "n_routed_experts", default=0)
    intermediate = number("intermediate_size", default=4 * hidden)
    expert_width = number("moe_intermediate_size", default=intermediate) if experts else 0
    shared = number("shared_expert_intermediate_size", default=expert_width * number("n_shared_experts", default=0))
    window, windowed = _windows(text, layers)
    return ModelShape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=number("num_key_value_heads", default=heads),
        head_dim=number("head_dim", default=hidden // heads),
        intermediate=intermediate,
        vocab_size=number("vocab_size"),
        context_length=number("max_position_embeddings", default=8192),
        # Gemma's config leaves it out, tied being its default.
        tied=bool(text.get("tie_word_embeddings", str(text.get("model_type", "")).startswith("gemma"))),
        experts=experts,
        active_experts=number("num_experts_per_tok", default=2) if experts else 0,
        expert_intermediate=expert_width,
        shared_intermediate=shared if experts else 0,
        dense_layers=number("first_k_dense_replace", default=len(text.get("mlp_only_layers") or ())) if experts else 0,
        windowed_layers=windowed,
        window=window,
    )


def _windows(text: Mapping[str, Any], layers: int) -> tuple[int, int]:
    """The sliding window and how many layers have it."""
    window = text.get("sliding_window")
    if not isinstance(window, int) or text.get("use_sliding_window") is False:
        return 0, 0
    kinds = text.get("layer_types")
    if isinstance(kinds, list):
        return window, sum(kind == "sliding_attention" for kind in kinds)
    pattern = text.get("sliding_window_pattern")
    if isinstance(pattern, int) and pattern > 0:
        return window, layers - layers // pattern
    return window, layers


def precision_of(config: Mapping[str, Any]) -> str:
    """How a checkpoint holds its weights, by its own `quantization_config` or dtype."""
    quantization = config.get("quantization_config") or {}
    method = str(quantization.get("quant_method", ""))
    if method in ("fp8", "fbgemm_fp8"):
        return "fp8"
    bits = quantization.get("bits", 4 if quantization.get("load_in_4bit") or method == "mxfp4" else None)
    if bits in (4, 8):
        return f"int{bits}"
    text = config.get("text_config", config)
    named = str(config.get("dtype", config.get("torch_dtype", text.get("dtype", text.get("torch_dtype", "bfloat16")))))
    return named if named in WEIGHT_BYTES else "bfloat16"


def kv_bytes(values: int, head_dim: int, precision: str) -> int:
    """Bytes that `values` numbers of keys and values of heads of `head_dim` take, their scales included."""
    return values * KV_BYTES[precision] + values // head_dim * _KV_SCALE_BYTES.get(precision, 0)


def need(shape: ModelShape, load: Workload, overhead: int = DEVICE_OVERHEAD) -> Need:
    """Memory for a workload, in bytes."""
    tables = shape.embedding_weights * (1 if shape.tied else 2)
    weights = (shape.weights - tables) * WEIGHT_BYTES[load.weights] + tables * _table_bytes(load.weights)
    kv = load.concurrency * kv_bytes(shape.kv_values(load.context), shape.head_dim, load.kv)
    # A step's widest moment: the residual stream, a layer's queries, keys, values and gate, and the logits in 32 bits.
    width = 2 * shape.hidden + (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    width += 2 * max(shape.intermediate, shape.active_experts * shape.expert_intermediate)
    number = 4 if load.weights == "float32" else 2
    activations = load.step_tokens * width * number + load.concurrency * shape.vocab_size * 4 * 2
    return Need(int(weights), int(kv), int(activations), overhead)


def tokens_per_second(shape: ModelShape, load: Workload, bandwidth: float, devices: int = 1) -> float:
    """Decoding pace over all sequences together, from `bandwidth` in bytes a second of each of `devices`."""
    held = max(1, int(load.context * load.filled))
    read = (shape.weights_read(load.concurrency) - shape.embedding_weights) * WEIGHT_BYTES[load.weights]
    read += shape.embedding_weights * _table_bytes(load.weights)
    read += load.concurrency * kv_bytes(shape.kv_values(held), shape.head_dim, load.kv)
    share = BANDWIDTH_SHARE * SPLIT_SHARE[devices] * devices
    return load.concurrency * bandwidth * share / read


def _table_bytes(weights: str) -> float:
    """Bytes of a vocabulary table's weight: 8 bits where the rest has integer codes, 16 where it is fp8."""
    return WEIGHT_BYTES["int8" if weights in ("int4", "int8") else "float32" if weights == "float32" else "bfloat16"]
