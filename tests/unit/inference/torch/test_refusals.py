"""Nothing that changes an answer is passed over: fields, tensors and damaged values are refused by file and name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file, save_file

from inference.adapters.torch.loading import ModelError, UnsupportedModel, load_checkpoint
from inference.adapters.torch.loading.folder_config import read_config
from inference.adapters.torch.loading.gguf_weights import GgufWeight
from inference.adapters.torch.loading.weights import rounded
from inference.adapters.torch.runner import RunnerOptions, build_runner

from .conftest import SMALL
from .gguf_files import write_gguf

# Fields of other models' configs that change the mathematics, in a Llama's.
OTHER_MATHEMATICS: list[tuple[str, Any]] = [
    ("attn_logit_softcapping", 50.0),
    ("final_logit_softcapping", 30.0),
    ("query_pre_attn_scalar", 256),
    ("sliding_window", 128),
    ("layer_types", ["sliding_attention"] * 3),
    ("attention_chunk_size", 8192),
    ("no_rope_layers", [1, 1, 0]),
    ("no_rope_layer_interval", 4),
    ("partial_rotary_factor", 0.5),
    ("rotary_pct", 0.25),
    ("rope_interleaved", True),
    ("alibi", True),
    ("clip_qkv", 8.0),
    ("logit_scale", 0.0625),
    ("logits_scaling", 8.0),
    ("embedding_multiplier", 12.0),
    ("residual_multiplier", 0.22),
    ("attention_multiplier", 0.015),
    ("scale_emb", 12),
    ("scale_depth", 1.4),
    ("dim_model_base", 256),
    ("use_qk_norm", True),
    ("qk_layernorm", True),
    ("layer_norm_type", "layer_norm"),
    ("parallel_attn", True),
    ("use_parallel_residual", True),
    ("num_experts_per_tok", 2),
    ("n_routed_experts", 64),
    ("num_nextn_predict_layers", 1),
    ("attention_sinks", 4),
    ("qkv_bias", True),
    ("hidden_activation", "gelu"),
    ("hidden_act", "gelu"),
    ("hidden_act", "relu2"),
    ("altup_num_inputs_per_layer", 4),
    ("use_bidirectional_attention", True),
    ("kv_lora_rank", 512),
    ("quantization_config", {"quant_method": "awq", "bits": 4}),
]


def read(folder: Path, **fields: Any) -> Any:
    return read_config(folder, {"architectures": ["LlamaForCausalLM"], **SMALL, **fields}, {})


@pytest.mark.parametrize(("name", "value"), OTHER_MATHEMATICS)
def test_fields_that_change_the_mathematics_are_refused_by_name(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=rf"{tmp_path.name}: .*{name}"):
        read(tmp_path, **{name: value})


@pytest.mark.parametrize(
    "fields",
    [
        {name: None for name, _ in OTHER_MATHEMATICS if name != "hidden_act"},
        {"attention_dropout": 0.1, "output_attentions": False, "use_cache": True, "torch_dtype": "bfloat16"},
        {"logit_scale": 1.0, "embedding_multiplier": 1, "partial_rotary_factor": 1.0, "alibi": False},
        {"layer_types": ["full_attention"] * 3, "use_qk_norm": False, "pretraining_tp": 2, "unsloth_version": "2025.1"},
    ],
)
def test_fields_that_say_nothing_are_let_be(fields: dict[str, Any], tmp_path: Path) -> None:
    assert read(tmp_path, **fields) == read(tmp_path)


ROPES: list[tuple[dict[str, Any], str]] = [
    ({"rope_type": "proportional", "factor": 2.0}, "rope_type 'proportional'"),
    ({"type": "mrope", "mrope_section": [8, 4, 4]}, "type 'mrope'"),
    ({"rope_type": "linear", "factor": 2.0, "mscale": 0.7}, "mscale 0.7"),
    ({"rope_type": "default", "short_mscale": 1.2}, "short_mscale"),
    ({"rope_type": "yarn", "factor": -2.0, "original_max_position_embeddings": 64}, "factor -2.0"),
    ({"rope_type": "longrope", "long_factor": [1.0] * 16}, "short_factor"),
    ({"rope_type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}, "1 rope factors for 16"),
    ({"rope_type": "linear"}, "factor is missing"),
    ({"rope_type": "linear", "factor": "2"}, "factor '2'"),
]


@pytest.mark.parametrize(("rope", "named"), ROPES)
def test_positions_that_are_not_computed_are_refused_by_name(rope: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=named):
        read(tmp_path, rope_scaling=rope)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_attention_heads", 0),
        ("num_hidden_layers", 10**9),
        ("hidden_size", -128),
        ("hidden_size", "128"),
        ("num_hidden_layers", 2.5),
        ("rms_norm_eps", float("nan")),
        ("rope_theta", 0.0),
        ("num_key_value_heads", 3),
        ("head_dim", 31),
        ("tie_word_embeddings", "yes"),
        ("vocab_size", True),
    ],
)
def test_numbers_that_no_model_has_are_refused(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=tmp_path.name):
        read(tmp_path, **{name: value})


def with_tensors(llama: tuple[Path, Any], folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """The model's folder with other tensors."""
    shutil.copytree(llama[0], folder)
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def with_fields(folder: Path, **fields: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    return folder


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.self_attn.q_proj.bias", (128,)),
        ("model.layers.0.self_attn.q_norm.weight", (32,)),
        ("model.layers.1.mlp.experts.0.gate_proj.weight", (96, 128)),
        ("model.layers.1.self_attn.sinks", (4,)),
        ("model.layers.0.pre_feedforward_layernorm.weight", (128,)),
        ("vision_tower.patch.weight", (4, 4)),
        ("lm_head.bias", (160,)),
        ("model.embed_positions.weight", (256, 128)),
    ],
)
def test_a_tensor_that_nothing_uses_is_refused_by_name(
    llama: tuple[Path, Any], tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    folder = with_tensors(llama, tmp_path / "m", lambda tensors: tensors.update({name: torch.ones(shape)}))
    with pytest.raises(UnsupportedModel, match=rf"model\.safetensors: tensor {name} is not part of"):
        load_checkpoint(folder)


def test_tensors_that_are_computed_or_lie_beside_the_model_are_let_be(llama: tuple[Path, Any], tmp_path: Path) -> None:
    names = ("model.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq")
    folder = with_tensors(llama, tmp_path / "m", lambda t: t.update(dict.fromkeys(names[:1], torch.ones(16))))
    other = {"tok_embeddings.weight": torch.ones(4, 4)}
    save_file(other, folder / "consolidated.safetensors")
    assert load_checkpoint(folder).weights.keys() == load_checkpoint(llama[0]).weights.keys()


def test_biases_that_the_config_names_must_be_there(llama: tuple[Path, Any], tmp_path: Path) -> None:
    shutil.copytree(llama[0], tmp_path / "m")
    for field, missing in (("attention_bias", "self_attn"), ("mlp_bias", "mlp")):
        with pytest.raises(ModelError, match=rf"layers\.0\.{missing}\.\w+\.bias is missing"):
            load_checkpoint(with_fields(tmp_path / "m", **{"attention_bias": False, field: True}))


def test_a_number_of_layers_that_the_tensors_contradict_is_refused(llama: tuple[Path, Any], tmp_path: Path) -> None:
    for layers, said in ((2, "is of layer 2, but the config says that there are 2"), (5, "the tensors are of 3")):
        shutil.copytree(llama[0], tmp_path / str(layers))
        with pytest.raises(ModelError, match=said):
            load_checkpoint(with_fields(tmp_path / str(layers), num_hidden_layers=layers))
    write_gguf(tmp_path / "m.gguf", llama[1], "llama", layers=2)
    with pytest.raises(ModelError, match=r"m\.gguf: tensor blk\.2\.\w+\.weight is of layer 2"):
        load_checkpoint(tmp_path / "m.gguf")


def test_a_tied_head_must_be_the_embedding(llama: tuple[Path, Any], tmp_path: Path) -> None:
    shutil.copytree(llama[0], tmp_path / "other")
    with pytest.raises(ModelError, match=r"tensor lm_head\.weight is not the embedding"):
        load_checkpoint(with_fields(tmp_path / "other", tie_word_embeddings=True))

    def same(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    folder = with_fields(with_tensors(llama, tmp_path / "same", same), tie_word_embeddings=True)
    assert "lm_head.weight" not in load_checkpoint(folder).weights
    untied = with_tensors(llama, tmp_path / "untied", lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(ModelError, match=r"lm_head\.weight is missing: tie_word_embeddings"):
        load_checkpoint(untied)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.usefixtures("kernels")
def test_values_that_are_not_finite_are_refused_by_file_and_tensor(
    llama: tuple[Path, Any], tmp_path: Path, value: float, precision: Any
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    folder = with_tensors(llama, tmp_path / "m", lambda tensors: tensors[name].view(-1)[77:78].fill_(value))
    with pytest.raises(ModelError, match=rf"m: model\.safetensors: tensor {name} holds values that are not finite"):
        build_runner(RunnerOptions(folder, precision=precision, num_blocks=8))


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q5_1, Kind.Q4_0, Kind.Q4_1])
@pytest.mark.parametrize("precision", ["float32", "auto"])
@pytest.mark.usefixtures("kernels")
def test_a_damaged_block_is_refused_by_file_and_tensor(
    llama: tuple[Path, Any], tmp_path: Path, kind: Kind, precision: Any
) -> None:
    """Infinity where a float or a block's scale lies."""
    path = tmp_path / "m.gguf"
    write_gguf(path, llama[1], "llama", kind)
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == "blk.1.ffn_up.weight")
    infinity = {Kind.F32: np.float32(np.inf).tobytes(), Kind.BF16: b"\x80\x7f"}.get(kind, np.float16(np.inf).tobytes())
    content = bytearray(path.read_bytes())
    content[tensor.data_offset : tensor.data_offset + len(infinity)] = infinity
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.gguf: tensor blk\.1\.ffn_up\.weight holds values that are not finite"):
        build_runner(RunnerOptions(path, precision=precision, num_blocks=8))


def test_values_beyond_the_scales_of_a_precision_are_refused_by_name(llama: tuple[Path, Any], tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    folder = with_tensors(llama, tmp_path / "m", lambda tensors: tensors[name].view(-1)[5:6].fill_(1e9))
    weight = load_checkpoint(folder).weights["layers.0.mlp.up_proj.weight"]
    for bits in (4, 8):
        with pytest.raises(ModelError, match=rf"{name} holds values too large for int{bits}"):
            rounded(weight, bits)
    assert weight.dense().max() == 1e9


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.logit_scale", 0.5),
        ("llama.attention.clamp_kqv", 8.0),
        ("llama.attention.max_alibi_bias", 8.0),
        ("llama.attention.scale", 0.3),
        ("llama.residual_scale", 0.2),
        ("llama.embedding_scale", 12.0),
        ("llama.rope.dimension_count", 16),
        ("llama.attention.value_length", 64),
        ("llama.rope.scaling.type", "longrope"),
        ("llama.use_parallel_residual", True),
        ("llama.expert_weights_scale", 2.5),
        ("llama.attention.head_count_kv", [2, 2, 1]),
        ("llama.attention.causal", False),
        ("llama.attention.sliding_window_pattern", [True, False, True]),
    ],
)
def test_gguf_fields_that_change_the_mathematics_are_refused_by_name(
    llama: tuple[Path, Any], tmp_path: Path, key: str, value: Any
) -> None:
    write_gguf(tmp_path / "m.gguf", llama[1], "llama", fields={key: value})
    with pytest.raises(UnsupportedModel, match=rf"m\.gguf: {key} "):
        load_checkpoint(tmp_path / "m.gguf")


def test_gguf_tensors_that_nothing_uses_are_refused_by_name(llama: tuple[Path, Any], tmp_path: Path) -> None:
    for name in (
        "blk.0.attn_sinks.weight",
        "blk.0.ffn_gate.0.weight",
        "position_embd.weight",
        "blk.0.ffn_gate_inp.weight",
    ):
        write_gguf(tmp_path / "m.gguf", llama[1], "llama", tensors={name: np.ones(128, np.float32)})
        with pytest.raises(UnsupportedModel, match=rf"m\.gguf: tensor {name} is not part of"):
            load_checkpoint(tmp_path / "m.gguf")


def test_a_cap_on_attention_is_refused_where_the_other_is_computed(tmp_path: Path) -> None:
    """Implementations disagree on whether Gemma 3 has one."""
    gemma = {"architectures": ["Gemma3ForCausalLM"], **SMALL}
    assert read_config(tmp_path, gemma | {"final_logit_softcapping": 30.0}, {}).logit_softcap == 30.0
    with pytest.raises(UnsupportedModel, match=r"attn_logit_softcapping 50\.0"):
        read_config(tmp_path, gemma | {"attn_logit_softcapping": 50.0}, {})


def test_gguf_soft_caps_are_computed(llama: tuple[Path, Any], tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", llama[1], "llama", fields={"llama.final_logit_softcapping": 30.0})
    assert load_checkpoint(tmp_path / "m.gguf").config.logit_softcap == 30.0
    assert isinstance(load_checkpoint(tmp_path / "m.gguf").weights["norm.weight"], GgufWeight)


@pytest.mark.parametrize("precision", ["auto", "bfloat16", "fp8", "int8", "int4"])
def test_a_card_without_bfloat16_is_refused_by_name(
    llama: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(ModelError, match=f"device cuda: Tesla T4 has no bfloat16, which precision '{precision}' needs"):
        build_runner(RunnerOptions(llama[0], device="cuda", precision=precision))
