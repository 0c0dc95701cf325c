"""Small GGUF files, written with the gguf library as converters write them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
}
_PHI = {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}
_GEMMA = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def write_gguf(
    path: Path,
    model: Any,
    architecture: str,
    kind: Any = gguf.GGMLQuantizationType.F32,
    other: dict[str, Any] | None = None,
    *,
    layers: int | None = None,
    fields: dict[str, Any] | None = None,
    tensors: dict[str, NDArray[np.float32]] | None = None,
) -> None:
    """A transformers model as a GGUF file; matrices in `kind`, or as `other` says by a part of their name.

    `layers` is what the file says of their number, `fields` and `tensors` what it holds besides.
    """
    c = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(layers or c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    writer.add_key_length(head_dim)
    rope = c.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if architecture == "gemma3":
        writer.add_sliding_window(c.sliding_window)
    if rope.get("rope_type") == "llama3":
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / head_dim
        factors = rope["rope_theta"] ** -exponents / model.model.rotary_emb.inv_freq.numpy()
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    _write_rope(writer, c, architecture, head_dim)
    if hasattr(c, "num_experts_per_tok"):
        writer.add_expert_count(c.num_experts)
        writer.add_expert_used_count(c.num_experts_per_tok)
        writer.add_expert_feed_forward_length(getattr(c, "moe_intermediate_size", c.intermediate_size))
    if hasattr(c, "shared_expert_intermediate_size"):
        writer.add_expert_shared_feed_forward_length(c.shared_expert_intermediate_size)
    writer.add_eos_token_id(2)
    writer.add_token_list([f"t{i}" for i in range(c.vocab_size)])
    for name, tensor in _tensors(model):
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if architecture == "gemma3" and name.endswith("norm.weight"):
            values = values + 1
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            values = _pairs(values, head_dim)
        here = next((kinds for part, kinds in (other or {}).items() if part in name), kind)
        values = values[0] if name.endswith("shared_expert_gate.weight") else values
        stored = values if values.ndim == 1 else gguf.quants.quantize(values, here)
        writer.add_tensor(_gguf_name(name, architecture), stored, raw_dtype=None if values.ndim == 1 else here)
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    _replace_fields(writer, fields or {})
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _replace_fields(writer: gguf.GGUFWriter, fields: dict[str, Any]) -> None:
    for key, value in fields.items():
        writer.kv_data[0].pop(key, None)
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        add.get(type(value), writer.add_array)(key, value)


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """Names and tensors; the experts' gates and ups, which transformers joins, apart."""
    for name, tensor in model.state_dict().items():
        if name.endswith("experts.gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            yield name.replace("gate_up_proj", "gate_exps"), gate
            yield name.replace("gate_up_proj", "up_exps"), up
        else:
            yield name.replace("experts.down_proj", "experts.down_exps"), tensor


def _write_rope(writer: gguf.GGUFWriter, c: Any, architecture: str, head_dim: int) -> None:
    rope = c.rope_parameters
    rotated = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    writer.add_rope_dimension_count(rotated)
    if rope.get("rope_type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope.get("rope_type") == "longrope":
        original = rope["original_max_position_embeddings"]
        stretched = c.max_position_embeddings / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(stretched) / math.log(original)))
        for kind in ("long", "short"):
            factors = np.array(rope[f"{kind}_factor"], dtype=np.float32)
            writer.add_tensor(f"rope_factors_{kind}.weight", factors)
    if architecture == "phi3" and c.sliding_window:
        writer.add_sliding_window(c.sliding_window)


def _pairs(values: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """Halves of a head to rotation pairs, as llama.cpp wants Llama's queries and keys."""
    heads = values.reshape(-1, 2, head_dim // 2, values.shape[1])
    return np.ascontiguousarray(heads.swapaxes(1, 2).reshape(values.shape))


def _gguf_name(name: str, architecture: str) -> str:
    top = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in top or name == "lm_head.weight":
        return top.get(name, "output.weight")
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    stem, kind = rest.rsplit(".", 1)
    if rest.endswith("_exps"):
        return f"blk.{layer}.ffn_{rest.rsplit('.', 1)[1]}.weight"
    names = _NAMES | {"gemma3": _GEMMA, "phi3": _PHI}.get(architecture, {})
    return f"blk.{layer}.{names[stem]}.{kind}"
