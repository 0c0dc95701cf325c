"""Models in GGUF files: tensors by Hugging Face's names."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .config import ModelConfig
from .errors import UnsupportedModel
from .gguf_config import read_config
from .gguf_file import GgufFile
from .gguf_weights import SUPPORTED, GgufWeight
from .joined import parts_of
from .weights import Weight

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
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
_OTHERS = {
    "gemma3": {
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
    "phi3": {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
}
# Tensors that hold no weights of the network; they are read into the config.
_NOT_WEIGHTS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
# Llama's queries and keys lie in rotation pairs.
_PAIRED = ("llama", "mixtral")


def open_file(path: Path) -> tuple[ModelConfig, dict[str, Weight]]:
    """The file's config and weights, not yet read. Raises ModelError."""
    file = GgufFile(path)
    config = read_config(file)
    names = _LAYER | _OTHERS.get(config.architecture, {})
    weights: dict[str, Weight] = {}
    for tensor in file.tensors.values():
        if tensor.name in _NOT_WEIGHTS:
            continue
        if tensor.kind not in SUPPORTED:
            raise UnsupportedModel(f"{path.name}: tensor {tensor.name} is {tensor.kind.name}, which is not supported")
        name = _name(path, tensor.name, names)
        # One row, which the format writes as a vector.
        placed = replace(tensor, shape=(1, tensor.shape[-1])) if name.endswith("shared_expert_gate.weight") else tensor
        weight = GgufWeight(file, placed, _row_order(config, name, tensor.shape[0]))
        weights |= dict(parts_of(config, name, weight)) or {name: weight}
    return config, weights


def _name(path: Path, name: str, layer_names: dict[str, str]) -> str:
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    layer, stem, kind = match.groups() if match is not None else (None, name, "")
    known = _TOP if layer is None else layer_names
    if stem not in known:
        raise UnsupportedModel(f"{path.name}: tensor {name} is not part of this architecture")
    return f"{known[stem]}.{kind}" if layer is None else f"layers.{layer}.{known[stem]}.{kind}"


def _row_order(config: ModelConfig, name: str, rows: int) -> NDArray[np.int64] | None:
    """Llama's query and key rows lie in rotation pairs in GGUF; the halves of each head in Hugging Face's order."""
    if config.architecture not in _PAIRED or not re.search(r"\.self_attn\.[qk]_proj\.", name):
        return None
    if rows % config.head_dim:
        raise UnsupportedModel(f"{config.name}: {name} of {rows} rows is not heads of {config.head_dim}")
    order = np.arange(rows).reshape(-1, config.head_dim // 2, 2)
    return np.ascontiguousarray(order.transpose(0, 2, 1).reshape(rows))
