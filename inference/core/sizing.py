"""What a model needs and what a device gives: memory, the devices that fit, and tokens per second to expect.

Everything follows from the model's own config. Memory is weights, KV cache, activations and a fixed overhead;
decoding reads all active weights and the KV cache of every sequence once a step, so its pace is bandwidth over bytes,
times the share of the bandwidth that engines are seen to reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inference.core.shape import ModelShape

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


def kv_bytes(values: int, head_dim: int, precision: str) -> int:
    """Bytes that `values` numbers of keys and values of heads of `head_dim` take, their scales included."""
    return values * KV_BYTES[precision] + values // head_dim * _KV_SCALE_BYTES.get(precision, 0)


def need(shape: ModelShape, load: Workload, overhead: int = DEVICE_OVERHEAD) -> Need:
    """Memory for a workload, in bytes."""
    tables = shape.embedding_weights * (1 if shape.tied else 2)
    weights = (shape.weights - tables) * WEIGHT_BYTES[load.weights] + tables * _table_bytes(load.weights)
    kv = load.concurrency * kv_bytes(shape.kv_values(load.context), shape.cache_width, load.kv)
    # A step's widest moment: the residual stream, a layer's queries, keys, values and gate, and the logits in 32 bits.
    width = 2 * shape.hidden + shape.attention_width
    width += 2 * max(shape.intermediate, shape.active_experts * shape.expert_intermediate)
    number = 4 if load.weights == "float32" else 2
    activations = load.step_tokens * width * number + load.concurrency * shape.vocab_size * 4 * 2
    return Need(int(weights), int(kv), int(activations), overhead)


def tokens_per_second(shape: ModelShape, load: Workload, bandwidth: float, devices: int = 1) -> float:
    """Decoding pace over all sequences together, from `bandwidth` in bytes a second of each of `devices`."""
    held = max(1, int(load.context * load.filled))
    read = (shape.weights_read(load.concurrency) - shape.embedding_weights) * WEIGHT_BYTES[load.weights]
    read += shape.embedding_weights * _table_bytes(load.weights)
    read += load.concurrency * kv_bytes(shape.kv_values(held), shape.cache_width, load.kv)
    share = BANDWIDTH_SHARE * SPLIT_SHARE[devices] * devices
    return load.concurrency * bandwidth * share / read


def _table_bytes(weights: str) -> float:
    """Bytes of a vocabulary table's weight: 8 bits where the rest has integer codes, 16 where it is fp8."""
    return WEIGHT_BYTES["int8" if weights in ("int4", "int8") else "float32" if weights == "float32" else "bfloat16"]
