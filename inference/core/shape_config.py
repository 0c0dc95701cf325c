"""A model's shape, from the fields of a Hugging Face `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference.core.shape import LatentAttention, ModelShape, SizingError
from inference.core.sizing import WEIGHT_BYTES

# Architectures whose windows are off unless `use_sliding_window` says otherwise, and those that have none at all.
_WINDOWS_OFF, _NO_WINDOWS = "qwen", ("llama",)
# One layer in so many sees everything, where the config leaves it out.
_PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6}
_FULL, _WINDOWED, _CHUNKED, _LINEAR = "full_attention", "sliding_attention", "chunked_attention", "linear_attention"


class _Fields:
    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields

    def number(self, *names: str, default: int | None = None) -> int:
        """The first of `names` that is there. Raises SizingError where it is no number, or nothing is there."""
        for name in names:
            value = self.fields.get(name)
            if isinstance(value, list):
                raise SizingError(f"config: {name} differs from layer to layer, which is not planned for")
            if isinstance(value, int) and not isinstance(value, bool):
                if value < 0:
                    raise SizingError(f"config: {name} is {value}")
                return value
        if default is None:
            raise SizingError(f"config: {names[0]} is missing")
        return default

    def positive(self, *names: str, default: int | None = None) -> int:
        """As `number`, above 0."""
        found = self.number(*names, default=default)
        if found < 1:
            raise SizingError(f"config: {names[0]} is {found}")
        return found


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """Read a Hugging Face `config.json`. Raises SizingError, naming the field that is missing or not planned for."""
    text = _Fields(_object(config, "text_config") or config)
    hidden, heads = text.positive("hidden_size"), text.positive("num_attention_heads")
    layers = text.positive("num_hidden_layers")
    experts = text.number("num_local_experts", "num_experts", "n_routed_experts", default=0)
    intermediate = text.number("intermediate_size", default=4 * hidden)
    active = text.number("num_experts_per_tok", default=2) if experts else 0
    if active > experts:
        raise SizingError(f"config: num_experts_per_tok is {active}, there are {experts} experts")
    expert_width = text.number("moe_intermediate_size", default=intermediate) if experts else 0
    shared = expert_width * text.number("n_shared_experts", default=0)
    shared = text.number("shared_expert_intermediate_size", default=shared)
    window, windowed, cacheless = _windows(text, layers)
    return ModelShape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=text.positive("num_key_value_heads", default=heads),
        head_dim=text.positive("head_dim", default=hidden // heads),
        intermediate=intermediate,
        vocab_size=text.positive("vocab_size"),
        context_length=text.positive("max_position_embeddings", default=8192),
        # Gemma's config leaves it out, tied being its default.
        tied=bool(text.fields.get("tie_word_embeddings", _kind(text).startswith("gemma"))),
        experts=experts,
        active_experts=active,
        expert_intermediate=expert_width,
        shared_intermediate=shared if experts else 0,
        dense_layers=_dense_layers(text, layers) if experts else 0,
        windowed_layers=windowed,
        window=window,
        cacheless_layers=cacheless,
        latent=_latent(text),
    )


def _object(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name) or {}
    if not isinstance(value, Mapping):
        raise SizingError(f"config: {name} is not an object")
    return value


def _kind(text: _Fields) -> str:
    return str(text.fields.get("model_type", ""))


def _latent(text: _Fields) -> LatentAttention | None:
    rank = text.number("kv_lora_rank", default=0)
    if not rank:
        return None
    return LatentAttention(
        kv_rank=rank,
        query_rank=text.number("q_lora_rank", default=0),
        rotated=text.number("qk_rope_head_dim"),
        plain=text.number("qk_nope_head_dim"),
        value=text.number("v_head_dim"),
        index_key=text.number("index_head_dim", default=0),
    )


def _dense_layers(text: _Fields, layers: int) -> int:
    """Layers whose feed-forward part is ordinary though others have experts."""
    first, step = text.number("first_k_dense_replace", default=0), text.positive("decoder_sparse_step", default=1)
    only = text.fields.get("mlp_only_layers") or ()
    return sum(layer < first or layer in only or (layer + 1) % step != 0 for layer in range(layers))


def _windows(text: _Fields, layers: int) -> tuple[int, int, int]:
    """The sliding window, how many layers have it, and how many keep no keys and values at all."""
    window, kinds = text.number("sliding_window", default=0), text.fields.get("layer_types")
    off = _kind(text).startswith(_WINDOWS_OFF) and text.fields.get("use_sliding_window") is not True
    if off or text.fields.get("use_sliding_window") is False or _kind(text) in _NO_WINDOWS:
        window = 0
    if isinstance(kinds, list):
        unknown = set(kinds) - {_FULL, _WINDOWED, _CHUNKED, _LINEAR}
        if unknown:
            raise SizingError(f"config: layer_types {sorted(map(str, unknown))[0]!r} is not planned for")
        chunk = text.number("attention_chunk_size", default=0)
        seen = chunk if _CHUNKED in kinds else window
        return seen, sum(kind in (_WINDOWED, _CHUNKED) for kind in kinds) if seen else 0, kinds.count(_LINEAR)
    interval = text.number("full_attention_interval", default=0)
    cacheless = layers - layers // interval if interval else 0
    if not window:
        return 0, 0, cacheless
    pattern = text.number("sliding_window_pattern", "_sliding_window_pattern", default=_PATTERNS.get(_kind(text), 0))
    if pattern:
        return window, layers - layers // pattern, cacheless
    if off is False and _kind(text).startswith(_WINDOWS_OFF):
        return window, max(0, layers - text.number("max_window_layers", default=28)), cacheless
    return window, layers - cacheless, cacheless


def precision_of(config: Mapping[str, Any]) -> str:
    """How a checkpoint holds its weights, by its own `quantization_config` or dtype."""
    quantization = _object(config, "quantization_config")
    method = str(quantization.get("quant_method", ""))
    if method in ("fp8", "fbgemm_fp8"):
        return "fp8"
    bits = quantization.get("bits", 4 if quantization.get("load_in_4bit") or method == "mxfp4" else None)
    if bits in (4, 8):
        return f"int{bits}"
    text = _object(config, "text_config") or config
    named = str(config.get("dtype", config.get("torch_dtype", text.get("dtype", text.get("torch_dtype", "bfloat16")))))
    return named if named in WEIGHT_BYTES else "bfloat16"
