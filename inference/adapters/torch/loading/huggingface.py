"""Models in Hugging Face folders: config.json to ModelConfig, and safetensors to weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .config import Architecture, ModelConfig, RopeScaling
from .errors import ModelError, TruncatedModel, UnknownArchitecture, UnsupportedModel
from .weights import Grouped, Weight

_ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma3ForCausalLM": "gemma3",
    "Gemma3ForConditionalGeneration": "gemma3",
}
_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_BITS = {"F32": 32, "F16": 16, "BF16": 16}
# Gemma 3 with vision nests its language model; the rest of it is not served.
_PREFIXES = ("language_model.model.", "model.language_model.", "model.")
_NOT_SERVED = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")


@dataclass(frozen=True, slots=True)
class SafetensorsWeight:
    """A tensor of a safetensors file. `offset` is added: Gemma's norms are stored less one."""

    path: Path
    name: str
    shape: tuple[int, ...]
    bits: int
    offset: float = 0.0

    def dense(self) -> torch.Tensor:
        """The tensor in its own float type."""
        with safe_open(self.path, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(self.name)
        return tensor.float() + self.offset if self.offset else tensor

    def grouped(self) -> Grouped | None:
        """None: safetensors hold floats."""
        return None


def open_folder(path: Path) -> tuple[ModelConfig, dict[str, Weight]]:
    """The folder's config and weights, not yet read. Raises ModelError."""
    root = _json(path / "config.json")
    config = _config(path, root)
    weights: dict[str, Weight] = {}
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{path.name}: no .safetensors file")
    for file in files:
        for name, shape, bits in _tensors(file):
            if not name.startswith(_NOT_SERVED):
                short = _short(name)
                norm = config.architecture == "gemma3" and short.endswith("norm.weight")
                weights[short] = SafetensorsWeight(file, name, shape, bits, 1.0 if norm else 0.0)
    if config.tied:
        weights.pop("lm_head.weight", None)
    return config, weights


def _tensors(file: Path) -> list[tuple[str, tuple[int, ...], int]]:
    """Name, shape and bits of every tensor. Opening checks that the file is as long as its header says."""
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - it has no iterator
            unknown = {s.get_dtype() for s in slices.values()} - set(_BITS)
            if unknown:
                raise UnsupportedModel(f"{file.name}: weights of type {', '.join(sorted(unknown))}")
            return [(name, tuple(s.get_shape()), _BITS[s.get_dtype()]) for name, s in slices.items()]
    except SafetensorError as error:
        raise TruncatedModel(f"{file.name}: {error}") from error


def _short(name: str) -> str:
    for prefix in (*_PREFIXES, "language_model."):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent.name}: {path.name} is missing") from error
    except json.JSONDecodeError as error:
        raise ModelError(f"{path.parent.name}: {path.name} is not JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise ModelError(f"{path.parent.name}: {path.name} is not an object")
    return loaded


def _config(path: Path, root: dict[str, Any]) -> ModelConfig:
    named = (root.get("architectures") or [None])[0]
    if named not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise UnknownArchitecture(f"{path.name}: architecture {named!r}; known are {known}")
    kind = _ARCHITECTURES[named]
    data = root.get("text_config", root)
    if "quantization_config" in root:
        raise UnsupportedModel(f"{path.name}: quantization_config in config.json")

    def field(name: str, default: Any = None) -> Any:
        value = data.get(name)
        value = default if value is None else value
        if value is None:
            raise ModelError(f"{path.name}: {name} is missing from config.json")
        return value

    activation = str(data.get("hidden_activation") or data.get("hidden_act") or "silu")
    if activation not in _ACTIVATIONS:
        raise UnsupportedModel(f"{path.name}: activation {activation!r}")
    heads, hidden = int(field("num_attention_heads")), int(field("hidden_size"))
    layers = int(field("num_hidden_layers"))
    head_dim = int(field("head_dim", hidden // heads))
    gemma = kind == "gemma3"
    theta, local_theta, scaling = _rope(path, data, gemma)
    return ModelConfig(
        architecture=kind,
        name=path.name,
        layers=layers,
        hidden=hidden,
        intermediate=int(field("intermediate_size")),
        heads=heads,
        kv_heads=int(field("num_key_value_heads", heads)),
        head_dim=head_dim,
        vocab_size=int(field("vocab_size")),
        context_length=int(field("max_position_embeddings")),
        norm_eps=float(field("rms_norm_eps", 1e-6)),
        rope_theta=theta,
        eos_ids=_eos(path, data),
        rope_scaling=scaling,
        rope_theta_local=local_theta,
        activation="gelu_tanh" if _ACTIVATIONS[activation] == "gelu_tanh" else "silu",
        qk_norm=kind in ("qwen3", "gemma3"),
        post_norms=gemma,
        embedding_scale=hidden**0.5 if gemma else 1.0,
        attention_scale=float(field("query_pre_attn_scalar", head_dim)) ** -0.5 if gemma else head_dim**-0.5,
        windows=_windows(data, layers, gemma),
        tied=bool(data.get("tie_word_embeddings", root.get("tie_word_embeddings", gemma))),
    )


def _rope(path: Path, data: dict[str, Any], gemma: bool) -> tuple[float, float | None, RopeScaling | None]:
    """Base frequency, the windowed layers' own one, and the scaling; from either of the two ways to write them."""
    settings = data.get("rope_parameters") or data.get("rope_scaling") or {}
    full = settings.get("full_attention", settings)
    theta = float(full.get("rope_theta", data.get("rope_theta", 1_000_000.0 if gemma else 10_000.0)))
    local = settings.get("sliding_attention", {}).get("rope_theta", data.get("rope_local_base_freq", 10_000.0))
    kind = full.get("rope_type", full.get("type", "default"))
    return theta, float(local) if gemma else None, _scaling(path, str(kind), full)


def _scaling(path: Path, kind: str, settings: dict[str, Any]) -> RopeScaling | None:
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", factor=float(settings["factor"]))
    if kind == "llama3":
        return RopeScaling(
            "llama3",
            factor=float(settings["factor"]),
            low_freq_factor=float(settings["low_freq_factor"]),
            high_freq_factor=float(settings["high_freq_factor"]),
            original_context=int(settings["original_max_position_embeddings"]),
        )
    raise UnsupportedModel(f"{path.name}: rope scaling {kind!r}")


def _windows(data: dict[str, Any], layers: int, gemma: bool) -> tuple[int, ...]:
    window = int(data.get("sliding_window") or 0)
    if data.get("use_sliding_window") is False:
        return (0,) * layers
    kinds = data.get("layer_types")
    if kinds is None:
        period = int(data.get("sliding_window_pattern") or 6) if gemma else layers + 1
        return tuple(0 if (layer + 1) % period == 0 else window for layer in range(layers))
    return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)


def _eos(path: Path, data: dict[str, Any]) -> tuple[int, ...]:
    generation = path / "generation_config.json"
    named = _json(generation).get("eos_token_id") if generation.exists() else None
    named = data.get("eos_token_id") if named is None else named
    return tuple(int(token) for token in (named if isinstance(named, list) else [named] if named is not None else []))
