"""Models in GGUF files: metadata to ModelConfig, and tensor names to Hugging Face's."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import Architecture, ModelConfig, RopeScaling
from .errors import ModelError, UnknownArchitecture, UnsupportedModel
from .gguf_file import GgufFile
from .gguf_weights import SUPPORTED, GgufWeight
from .weights import Weight

# "llama" is Llama 2 and 3, SmolLM2 and Mistral.
_ARCHITECTURES: dict[str, Architecture] = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3"}
_TOP = {"token_embd": "embed_tokens", "output_norm": "norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_LAYER = _LAYER | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
# Tensors that hold no weights of the network; rope_freqs is read into the config.
_NOT_WEIGHTS = ("rope_freqs.weight",)
# Gemma 3 has one full layer after each five with a window, and this base frequency in the windowed ones.
_GEMMA_PERIOD, _GEMMA_LOCAL_THETA = 6, 10_000.0


def open_file(path: Path) -> tuple[ModelConfig, dict[str, Weight]]:
    """The file's config and weights, not yet read. Raises ModelError."""
    file = GgufFile(path)
    config = _config(file)
    names = _GEMMA_LAYER if config.architecture == "gemma3" else _LAYER
    weights: dict[str, Weight] = {}
    for tensor in file.tensors.values():
        if tensor.name in _NOT_WEIGHTS:
            continue
        if tensor.kind not in SUPPORTED:
            raise UnsupportedModel(f"{path.name}: tensor {tensor.name} is {tensor.kind.name}, which is not supported")
        name = _name(tensor.name, names)
        weights[name] = GgufWeight(file, tensor, _row_order(config, name, tensor.shape[0]))
    return config, weights


def _config(file: GgufFile) -> ModelConfig:
    data = file.metadata
    architecture = data.get("general.architecture")
    if architecture not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise UnknownArchitecture(f"{file.path.name}: architecture {architecture!r}; known are {known}")
    kind = _ARCHITECTURES[architecture]
    if data.get(f"{architecture}.expert_count", 0):
        raise UnsupportedModel(f"{file.path.name}: mixture of experts")

    def field(name: str, default: Any = None) -> Any:
        value = data.get(f"{architecture}.{name}", default)
        if value is None:
            raise ModelError(f"{file.path.name}: {architecture}.{name} is missing")
        return value

    heads, hidden = int(field("attention.head_count")), int(field("embedding_length"))
    layers = int(field("block_count"))
    head_dim = int(field("attention.key_length", hidden // heads))
    base = ModelConfig(
        architecture=kind,
        name=str(data.get("general.name", file.path.stem)),
        layers=layers,
        hidden=hidden,
        intermediate=int(field("feed_forward_length")),
        heads=heads,
        kv_heads=int(field("attention.head_count_kv", heads)),
        head_dim=head_dim,
        vocab_size=_vocabulary(file),
        context_length=int(field("context_length")),
        norm_eps=float(field("attention.layer_norm_rms_epsilon")),
        rope_theta=float(field("rope.freq_base", 10_000.0)),
        eos_ids=_eos(data),
        rope_scaling=_rope_scaling(file, architecture),
        qk_norm=kind in ("qwen3", "gemma3"),
        attention_scale=head_dim**-0.5,
        windows=_windows(data, architecture, layers),
        tied="output.weight" not in file.tensors,
    )
    return _gemma(base) if kind == "gemma3" else base


def _gemma(base: ModelConfig) -> ModelConfig:
    # The 27B model alone scales by its width per head instead of its head size.
    wide = base.hidden // base.heads if base.layers == 62 else base.head_dim
    return replace(
        base,
        rope_theta_local=_GEMMA_LOCAL_THETA,
        activation="gelu_tanh",
        post_norms=True,
        embedding_scale=base.hidden**0.5,
        attention_scale=wide**-0.5,
    )


def _vocabulary(file: GgufFile) -> int:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelError(f"{file.path.name}: tensor token_embd.weight is missing")
    return embedding.shape[0]


def _eos(data: dict[str, Any]) -> tuple[int, ...]:
    named = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    return tuple(dict.fromkeys(int(data[key]) for key in named if key in data))


def _windows(data: dict[str, Any], architecture: str, layers: int) -> tuple[int, ...]:
    window = int(data.get(f"{architecture}.attention.sliding_window", 0))
    period = _GEMMA_PERIOD if architecture == "gemma3" else layers + 1
    return tuple(0 if (layer + 1) % period == 0 else window for layer in range(layers))


def _rope_scaling(file: GgufFile, architecture: str) -> RopeScaling | None:
    if "rope_freqs.weight" in file.tensors:
        factors = GgufWeight(file, file.tensors["rope_freqs.weight"]).dense().tolist()
        return RopeScaling("factors", factors=tuple(factors))
    kind = file.metadata.get(f"{architecture}.rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind != "linear":
        raise UnsupportedModel(f"{file.path.name}: rope scaling {kind!r}")
    return RopeScaling("linear", factor=float(file.metadata[f"{architecture}.rope.scaling.factor"]))


def _name(name: str, layer_names: dict[str, str]) -> str:
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if match is None:
        raise UnsupportedModel(f"tensor {name} is not known")
    layer, stem, kind = match.groups()
    known = _TOP if layer is None else layer_names
    if stem not in known:
        raise UnsupportedModel(f"tensor {name} is not known")
    return f"{known[stem]}.{kind}" if layer is None else f"layers.{layer}.{known[stem]}.{kind}"


def _row_order(config: ModelConfig, name: str, rows: int) -> NDArray[np.int64] | None:
    """Llama's query and key rows lie in rotation pairs in GGUF; the halves of each head in Hugging Face's order."""
    if config.architecture != "llama" or not re.search(r"\.self_attn\.[qk]_proj\.", name):
        return None
    order = np.arange(rows).reshape(-1, config.head_dim // 2, 2)
    return np.ascontiguousarray(order.transpose(0, 2, 1).reshape(rows))
