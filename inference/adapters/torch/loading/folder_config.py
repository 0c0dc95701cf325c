"""A Hugging Face folder's config.json to ModelConfig: what each architecture reads, and its own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .config import MOST_LAYERS, Architecture, Experts, ModelConfig
from .errors import ModelError, UnknownArchitecture, UnsupportedModel
from .folder_fields import Fields
from .folder_rope import Rope, read_rope

_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_QKV = frozenset(f"self_attn.{kind}_proj" for kind in "qkv")
_ATTENTION = _QKV | {"self_attn.o_proj"}
_MLP = frozenset(f"mlp.{kind}_proj" for kind in ("gate", "up", "down"))
_WINDOWS = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")
_EXPERTS = ("num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob")
_SPARSE = ("decoder_sparse_step", "mlp_only_layers")
_GEMMA = (
    *("sliding_window", "sliding_window_pattern", "_sliding_window_pattern", "layer_types", "query_pre_attn_scalar"),
    *("hidden_activation", "rope_local_base_freq", "final_logit_softcapping"),
    "attention_bias",
)


@dataclass(frozen=True, slots=True)
class _Family:
    """What an architecture reads beyond the common fields, and the values of what its config leaves out."""

    kind: Architecture
    read: tuple[str, ...] = ()
    # Projections that have a bias always, and by which fields others have.
    biases: frozenset[str] = frozenset()
    bias_fields: Mapping[str, tuple[frozenset[str], bool]] = field(default_factory=dict)
    eps: float = 1e-6
    theta: float = 10_000.0
    head_dim: int | None = None


_FAMILIES = {
    "LlamaForCausalLM": _Family(
        "llama", bias_fields={"attention_bias": (_ATTENTION, False), "mlp_bias": (_MLP, False)}
    ),
    "MistralForCausalLM": _Family("llama", ("sliding_window",)),
    "MixtralForCausalLM": _Family("mixtral", ("sliding_window", *_EXPERTS[:3]), eps=1e-5, theta=1e6),
    "Qwen2ForCausalLM": _Family("qwen2", _WINDOWS, _QKV),
    "Qwen3ForCausalLM": _Family("qwen3", _WINDOWS, bias_fields={"attention_bias": (_ATTENTION, False)}, head_dim=128),
    "Qwen2MoeForCausalLM": _Family(
        "qwen2moe",
        (*_WINDOWS, *_EXPERTS, *_SPARSE, "shared_expert_intermediate_size"),
        bias_fields={"qkv_bias": (_QKV, True)},
    ),
    "Qwen3MoeForCausalLM": _Family(
        "qwen3moe", (*_WINDOWS[:3], *_EXPERTS, *_SPARSE), bias_fields={"attention_bias": (_ATTENTION, False)}
    ),
    "Phi3ForCausalLM": _Family("phi3", ("sliding_window",), eps=1e-5),
}
_GEMMA_FAMILY = _Family(
    "gemma3", _GEMMA, bias_fields={"attention_bias": (_ATTENTION, False)}, theta=1_000_000.0, head_dim=256
)
_FAMILIES |= dict.fromkeys(("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"), _GEMMA_FAMILY)


def read_config(path: Path, root: dict[str, Any], generation: dict[str, Any]) -> ModelConfig:
    """The config of the folder `path`, from config.json and generation_config.json. Raises ModelError."""
    architectures = root.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    family = _FAMILIES.get(str(named))
    if family is None:
        known = ", ".join(_FAMILIES)
        raise UnknownArchitecture(f"{path.name}: architecture {named!r}; known are {known}")
    if root.get("quantization_config") or root.get("compression_config"):
        raise UnsupportedModel(f"{path.name}: quantization_config in config.json")
    whole = Fields(path, root)
    data = whole.part("text_config") if root.get("text_config") else whole
    for part in (whole, data):
        part.check_known((*family.read, *family.bias_fields))
    rope = read_rope(data, family.kind, family.theta)
    config = _config(path.name, data, family, rope)
    tied = data.flag("tie_word_embeddings", whole.flag("tie_word_embeddings", family.kind == "gemma3"))
    return replace(config, tied=tied, eos_ids=_eos(path, generation, root, data))


def _config(name: str, data: Fields, family: _Family, rope: Rope) -> ModelConfig:
    kind, gemma = family.kind, family.kind == "gemma3"
    heads, hidden, layers = (
        data.count("num_attention_heads"),
        data.count("hidden_size"),
        data.count("num_hidden_layers"),
    )
    if layers > MOST_LAYERS:
        raise data.wrong("num_hidden_layers", f"is above {MOST_LAYERS}")
    head_dim = data.count("head_dim", default=family.head_dim or hidden // max(heads, 1))
    rotated = int(head_dim * rope.share)
    scale = data.number("query_pre_attn_scalar", 256.0) ** -0.5 if gemma else max(head_dim, 1) ** -0.5
    # Where every dimension is rotated, the factor on queries and keys is one on their products.
    whole = rotated == head_dim
    return ModelConfig(
        architecture=kind,
        name=name,
        layers=layers,
        hidden=hidden,
        intermediate=data.count("intermediate_size"),
        heads=heads,
        kv_heads=data.count("num_key_value_heads", default=heads),
        head_dim=head_dim,
        vocab_size=data.count("vocab_size"),
        context_length=rope.context,
        norm_eps=data.number("rms_norm_eps", family.eps),
        rope_theta=rope.theta,
        eos_ids=(),
        rope_scaling=rope.scaling,
        rope_theta_local=rope.theta_local,
        rotated=0 if whole else rotated,
        rotation_scale=1.0 if whole else rope.factor,
        activation=_activation(data, gemma),
        qk_norm=kind in ("qwen3", "qwen3moe", "gemma3"),
        post_norms=gemma,
        embedding_scale=hidden**0.5 if gemma else 1.0,
        attention_scale=scale * rope.factor**2 if whole else scale,
        logit_softcap=data.number("final_logit_softcapping", 0.0),
        windows=_windows(data, kind, layers),
        experts=_experts(data, kind, layers),
        biases=_biases(data, family),
    )


def _activation(data: Fields, gemma: bool) -> Any:
    name = "hidden_activation" if gemma else "hidden_act"
    wanted = data.get(name, "gelu_pytorch_tanh" if gemma else "silu")
    if wanted not in _ACTIVATIONS:
        raise data.refuse(name)
    return _ACTIVATIONS[wanted]


def _biases(data: Fields, family: _Family) -> frozenset[str]:
    switched = [places for name, (places, default) in family.bias_fields.items() if data.flag(name, default)]
    return family.biases.union(*switched)


def _windows(data: Fields, kind: Architecture, layers: int) -> tuple[int, ...]:
    """As transformers reads them: which layers have a window differs by architecture."""
    window = data.count("sliding_window", default=0)
    if kind.startswith("qwen") and not data.flag("use_sliding_window", False):
        window = 0
    kinds = data.get("layer_types")
    if kinds is not None:
        if not isinstance(kinds, list) or len(kinds) != layers:
            raise data.wrong("layer_types", f"does not name {layers} layers")
        if not set(kinds) <= {"full_attention", "sliding_attention"}:
            raise data.refuse("layer_types")
        return tuple(window if one == "sliding_attention" else 0 for one in kinds)
    first = data.count("max_window_layers", default=28)
    if kind in ("qwen2", "qwen3"):
        return tuple(window if layer >= first else 0 for layer in range(layers))
    if kind == "qwen2moe":
        return tuple(window if layer < first and layer % 2 == 0 else 0 for layer in range(layers))
    if kind == "gemma3":
        period = data.count("sliding_window_pattern", "_sliding_window_pattern", default=6)
        if period < 1:
            raise data.wrong("sliding_window_pattern", "is not above 0")
        return tuple(0 if (layer + 1) % period == 0 else window for layer in range(layers))
    return (window,) * layers


def _experts(data: Fields, kind: Architecture, layers: int) -> Experts | None:
    if kind not in ("mixtral", "qwen2moe", "qwen3moe"):
        return None
    mixtral = kind == "mixtral"
    only = data.get("mlp_only_layers", [])
    step = data.count("decoder_sparse_step", default=1)
    if not isinstance(only, list) or step < 1:
        raise data.wrong("decoder_sparse_step" if step < 1 else "mlp_only_layers", "names no layers")
    sparse = frozenset(layer for layer in range(layers) if layer not in only and (layer + 1) % step == 0)
    return Experts(
        count=data.count("num_local_experts", "num_experts"),
        active=data.count("num_experts_per_tok"),
        intermediate=data.count("intermediate_size" if mixtral else "moe_intermediate_size"),
        layers=sparse,
        normalized=mixtral or data.flag("norm_topk_prob", False),
        shared_intermediate=data.count("shared_expert_intermediate_size", default=5632) if kind == "qwen2moe" else 0,
    )


def _eos(path: Path, generation: Mapping[str, Any], root: Mapping[str, Any], data: Fields) -> tuple[int, ...]:
    values = (generation.get("eos_token_id"), data.get("eos_token_id"), root.get("eos_token_id"))
    named: Any = next((value for value in values if value is not None), [])
    tokens = named if isinstance(named, list) else [named]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in tokens):
        raise ModelError(f"{path.name}: eos_token_id {named!r} is no token's number, nor a list of them")
    return tuple(tokens)
