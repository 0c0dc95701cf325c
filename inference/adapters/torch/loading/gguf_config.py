"""A GGUF file's metadata to ModelConfig. A field of the network that nothing here reads is refused by name."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

from .config import MOST_LAYERS, Architecture, Experts, ModelConfig
from .errors import ModelError, UnknownArchitecture, UnsupportedModel
from .gguf_file import GgufFile
from .gguf_weights import GgufWeight
from .rope import RopeScaling, yarn_attention_factor

# "llama" is Llama 2 and 3, SmolLM2, Mistral, and with experts Mixtral.
ARCHITECTURES: dict[str, Architecture] = {
    kind: kind for kind in ("llama", "qwen2", "qwen3", "gemma3", "qwen2moe", "qwen3moe", "phi3")
}
# Gemma 3 has one full layer after each five with a window, and this base frequency in the windowed ones.
_GEMMA_PERIOD, _GEMMA_LOCAL_THETA = 6, 10_000.0
_SOFTMAX = 1
_READ = frozenset(
    (
        *("block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size"),
        *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
        *("attention.layer_norm_rms_epsilon", "attention.sliding_window", "rope.freq_base", "rope.freq_base_swa"),
        *("rope.dimension_count", "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"),
        *("rope.scaling.attn_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"),
        *("expert_count", "expert_used_count", "expert_feed_forward_length", "expert_shared_feed_forward_length"),
        *("expert_weights_norm", "expert_gating_func", "final_logit_softcapping"),
        # Notes, and what must be as it is in every decoder.
        *("rope.scaling.finetuned", "tensor_data_layout", "attention.causal", "expert_shared_count"),
    )
)


class GgufFields:
    """The metadata under the architecture's prefix. Errors name the file and the field."""

    def __init__(self, file: GgufFile, architecture: str) -> None:
        self._file, self._prefix = file, f"{architecture}."

    def get(self, name: str, default: Any = None) -> Any:
        """The field as it is."""
        return self._file.metadata.get(self._prefix + name, default)

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.get(name, default)
        if value is None:
            raise ModelError(f"{self._file.path.name}: {self._prefix}{name} is missing")
        if isinstance(value, bool | str | list):
            raise self.refuse(name)
        if not math.isfinite(value):
            raise ModelError(f"{self._file.path.name}: {self._prefix}{name} {value!r} is no finite number")
        return float(value)

    def count(self, name: str, default: int | None = None) -> int:
        """A whole number."""
        return int(self.number(name, default))

    def refuse(self, name: str) -> UnsupportedModel:
        """The error about a field that this engine does not have."""
        shown = repr(self.get(name))
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return UnsupportedModel(f"{self._file.path.name}: {self._prefix}{name} {shown} is not supported")

    def check_known(self) -> None:
        """Raise UnsupportedModel for a field that nothing reads, unless its value says nothing."""
        for key, value in self._file.metadata.items():
            name = key.removeprefix(self._prefix)
            scale = re.search(r"scale|factor|multiplier", name) is not None
            read = name in _READ or (name == "attention.sliding_window_pattern" and self._prefix == "gemma3.")
            if key.startswith(self._prefix) and not read and value and not (scale and value == 1):
                raise self.refuse(name)
        if self.get("attention.causal", True) is not True:
            raise self.refuse("attention.causal")


def read_config(file: GgufFile) -> ModelConfig:
    """The config of the file. Raises ModelError."""
    architecture = file.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UnknownArchitecture(f"{file.path.name}: architecture {architecture!r}; known are {known}")
    kind = ARCHITECTURES[architecture]
    data = GgufFields(file, architecture)
    data.check_known()
    layers, hidden, heads = (data.count(n) for n in ("block_count", "embedding_length", "attention.head_count"))
    if layers > MOST_LAYERS:
        raise data.refuse("block_count")
    head_dim = data.count("attention.key_length", hidden // max(heads, 1))
    if data.count("attention.value_length", head_dim) != head_dim:
        raise data.refuse("attention.value_length")
    experts = _experts(file, data, kind)
    scaling, factor, context = _rope(file, data)
    rotated = data.count("rope.dimension_count", head_dim)
    if rotated != head_dim and kind != "phi3":
        raise data.refuse("rope.dimension_count")
    base = ModelConfig(
        architecture="mixtral" if kind == "llama" and experts is not None else kind,
        name=str(file.metadata.get("general.name", file.path.stem)),
        layers=layers,
        hidden=hidden,
        intermediate=data.count("feed_forward_length", experts.intermediate if experts is not None else None),
        heads=heads,
        kv_heads=data.count("attention.head_count_kv", heads),
        head_dim=head_dim,
        vocab_size=_vocabulary(file, data),
        context_length=context,
        norm_eps=data.number("attention.layer_norm_rms_epsilon"),
        rope_theta=data.number("rope.freq_base", 10_000.0),
        eos_ids=_eos(file.metadata),
        rope_scaling=scaling,
        rotated=0 if rotated == head_dim else rotated,
        rotation_scale=1.0 if rotated == head_dim else factor,
        qk_norm=kind in ("qwen3", "qwen3moe", "gemma3"),
        attention_scale=max(head_dim, 1) ** -0.5 * (factor**2 if rotated == head_dim else 1.0),
        logit_softcap=data.number("final_logit_softcapping", 0.0),
        windows=_windows(data, kind, layers),
        tied="output.weight" not in file.tensors,
        experts=experts,
    )
    return _gemma(base, data) if kind == "gemma3" else base


def _gemma(base: ModelConfig, data: GgufFields) -> ModelConfig:
    # The 27B model alone scales by its width per head instead of its head size.
    wide = base.hidden // base.heads if base.layers == 62 else base.head_dim
    return replace(
        base,
        rope_theta_local=data.number("rope.freq_base_swa", _GEMMA_LOCAL_THETA),
        activation="gelu_tanh",
        post_norms=True,
        embedding_scale=base.hidden**0.5,
        attention_scale=wide**-0.5,
    )


def _vocabulary(file: GgufFile, data: GgufFields) -> int:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelError(f"{file.path.name}: tensor token_embd.weight is missing")
    rows = embedding.shape[0]
    if data.count("vocab_size", rows) != rows:
        raise ModelError(
            f"{file.path.name}: vocab_size is {data.count('vocab_size')}, token_embd.weight has {rows} rows"
        )
    return rows


def _eos(metadata: dict[str, Any]) -> tuple[int, ...]:
    named = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    return tuple(dict.fromkeys(metadata[key] for key in named if isinstance(metadata.get(key), int)))


def _windows(data: GgufFields, kind: Architecture, layers: int) -> tuple[int, ...]:
    window = data.count("attention.sliding_window", 0)
    if kind != "gemma3":
        return (window,) * layers
    pattern = data.get("attention.sliding_window_pattern", _GEMMA_PERIOD)
    if isinstance(pattern, list) and len(pattern) == layers:
        return tuple(window if windowed else 0 for windowed in pattern)
    period = data.count("attention.sliding_window_pattern", _GEMMA_PERIOD)
    if period < 1:
        raise data.refuse("attention.sliding_window_pattern")
    return tuple(0 if (layer + 1) % period == 0 else window for layer in range(layers))


def _rope(file: GgufFile, data: GgufFields) -> tuple[RopeScaling | None, float, int]:
    """The stretching, what rotated queries and keys are multiplied by, and the context that can be served."""
    context = data.count("context_length")
    original = data.count("rope.scaling.original_context_length", context)
    if "rope_freqs.weight" in file.tensors:
        return RopeScaling("factors", factors=_factors(file, "rope_freqs.weight")), 1.0, context
    attention = data.number("rope.scaling.attn_factor", 1.0)
    if "rope_factors_short.weight" in file.tensors:
        # The long factors would change what was already read once a text passes the original context.
        scaling = RopeScaling("factors", factors=_factors(file, "rope_factors_short.weight"))
        return scaling, attention, min(context, original)
    kind = data.get("rope.scaling.type", "none")
    if kind == "none" and attention == 1.0:
        return None, 1.0, context
    if kind == "linear" and attention == 1.0:
        return RopeScaling("linear", factor=data.number("rope.scaling.factor")), 1.0, context
    if kind != "yarn":
        raise data.refuse("rope.scaling.attn_factor" if kind in ("none", "linear") else "rope.scaling.type")
    factor = data.number("rope.scaling.factor")
    scaling = RopeScaling(
        "yarn",
        factor=factor,
        original_context=original,
        beta_fast=data.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=data.number("rope.scaling.yarn_beta_slow", 1.0),
    )
    return scaling, attention * yarn_attention_factor(factor), max(context, int(original * factor))


def _factors(file: GgufFile, name: str) -> tuple[float, ...]:
    return tuple(GgufWeight(file, file.tensors[name]).dense().float().tolist())


def _experts(file: GgufFile, data: GgufFields, kind: Architecture) -> Experts | None:
    count = data.count("expert_count", 0)
    if not count:
        return None
    if kind not in ("llama", "qwen2moe", "qwen3moe"):
        raise data.refuse("expert_count")
    if data.count("expert_gating_func", _SOFTMAX) not in (0, _SOFTMAX):
        raise data.refuse("expert_gating_func")
    routers = (re.fullmatch(r"blk\.(\d+)\.ffn_gate_inp\.weight", name) for name in file.tensors)
    shared = data.count("expert_shared_feed_forward_length", 0)
    return Experts(
        count=count,
        active=data.count("expert_used_count"),
        intermediate=data.count("expert_feed_forward_length", data.count("feed_forward_length", 0)),
        layers=frozenset(int(router[1]) for router in routers if router is not None),
        normalized=bool(data.get("expert_weights_norm", kind != "qwen2moe")),
        shared_intermediate=shared if kind == "qwen2moe" else 0,
    )
