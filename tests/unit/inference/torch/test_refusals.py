"""Nothing that changes an answer is passed over: fields, tensors and damaged values are refused by file and name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.adapters.torch.loading import ModelError, UnsupportedModel, load_checkpoint
from inference.adapters.torch.loading.folder_config import read_config
from inference.adapters.torch.loading.weights import rounded
from inference.adapters.torch.runner import RunnerOptions, build_runner

from .conftest import SMALL, write_model
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


# As published, without what every config has.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Phi3ForCausalLM": {
        **{"attention_bias": False, "attention_dropout": 0.0, "auto_map": {"AutoConfig": "a.B"}, "embd_pdrop": 0.0},
        **{"full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False, "resid_pdrop": 0.0},
        **{"sliding_window": 262144, "use_cache": True, "original_max_position_embeddings": 4096},
    },
    "LlamaForCausalLM": {
        **{"attention_bias": False, "is_llama_config": True, "mlp_bias": False, "pretraining_tp": 1},
        **{"rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000, "_attn_implementation": "sdpa"},
        **{"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}},
    },
    "Qwen3MoeForCausalLM": {
        **{"decoder_sparse_step": 1, "max_window_layers": 48, "mlp_only_layers": [], "norm_topk_prob": True},
        **{"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "output_router_logits": False},
        **{"router_aux_loss_coef": 0.001, "sliding_window": None, "use_sliding_window": False, "rope_scaling": None},
    },
    "MixtralForCausalLM": {
        **{"num_local_experts": 8, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.02, "sliding_window": None},
        **{"router_jitter_noise": 0.0, "output_router_logits": False, "attention_dropout": 0.0},
    },
    "Gemma3ForCausalLM": {
        **{"attn_logit_softcapping": None, "cache_implementation": "hybrid", "final_logit_softcapping": None},
        **{"hidden_activation": "gelu_pytorch_tanh", "rope_local_base_freq": 10000, "sliding_window_pattern": 6},
        **{"query_pre_attn_scalar": 256, "use_bidirectional_attention": False, "sliding_window": 512},
    },
    "Qwen2ForCausalLM": {"max_window_layers": 28, "sliding_window": 131072, "use_mrope": False},
}


@pytest.mark.parametrize("named", PUBLISHED)
def test_published_configs_are_read(named: str, tmp_path: Path) -> None:
    assert read_config(tmp_path, {**SMALL, **PUBLISHED[named], "architectures": [named]}, {}).layers == 3


ROPES: list[tuple[dict[str, Any], str]] = [
    ({"rope_type": "proportional", "factor": 2.0}, "rope_type 'proportional'"),
    ({"type": "mrope", "mrope_section": [8, 4, 4]}, "type 'mrope'"),
    ({"rope_type": "linear", "factor": 2.0, "mscale": 0.7}, "mscale 0.7"),
    ({"rope_type": "default", "short_mscale": 1.2}, "short_mscale"),
    ({"rope_type": "yarn", "factor": -2.0, "original_max_position_embeddings": 64}, "factor -2.0"),
    ({"rope_type": "longrope", "long_factor": [1.0] * 16}, "short_factor"),
    ({"rope_type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}, "1 rope factors for 16"),
    ({"rope_type": "longrope", "long_factor": [1.0] * 16, "short_factor": [-1.0] * 16}, "not above 0"),
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
        ("eos_token_id", 10**6),
        ("eos_token_id", "</s>"),
        ("architectures", "LlamaForCausalLM"),
        ("text_config", [1]),
        ("rope_scaling", "linear"),
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


def test_values_beyond_the_scales_of_a_precision_are_refused_by_name(llama: tuple[Path, Any], tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    folder = with_tensors(llama, tmp_path / "m", lambda tensors: tensors[name].view(-1)[5:6].fill_(1e9))
    weight = load_checkpoint(folder).weights["layers.0.mlp.up_proj.weight"]
    for bits in (4, 8):
        with pytest.raises(ModelError, match=rf"{name} holds values too large for int{bits}"):
            rounded(weight, bits)
    assert weight.dense().max() == 1e9


@pytest.mark.parametrize("precision", ["auto", "bfloat16", "fp8", "int8", "int4"])
def test_a_card_without_bfloat16_is_refused_by_name(
    llama: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(ModelError, match=f"device cuda: Tesla T4 has no bfloat16, which precision '{precision}' needs"):
        build_runner(RunnerOptions(llama[0], device="cuda", precision=precision))


def test_a_mixture_must_have_the_experts_that_its_config_names(tmp_path: Path) -> None:
    write_model("mixtral", tmp_path / "m")
    assert load_checkpoint(tmp_path / "m").config.experts is not None
    for count, said in (
        (10**9, r"experts\.5\.gate_proj\.weight is missing"),
        (4, r"gate\.weight has shape \(5, 128\), expected \(4, 128\)"),
    ):
        with pytest.raises(ModelError, match=said):
            load_checkpoint(with_fields(tmp_path / "m", num_local_experts=count))
    with pytest.raises(ModelError, match="9 of 5 experts for a token"):
        load_checkpoint(with_fields(tmp_path / "m", num_local_experts=5, num_experts_per_tok=9))


def test_weights_of_other_types_are_refused_by_tensor(llama: tuple[Path, Any], tmp_path: Path) -> None:
    name = "model.layers.2.mlp.down_proj.weight"
    folder = with_tensors(llama, tmp_path / "m", lambda t: t.update({name: t[name].to(torch.float8_e4m3fn)}))
    with pytest.raises(UnsupportedModel, match=rf"model\.safetensors: tensor {name} is of type F8_E4M3"):
        load_checkpoint(folder)


def test_a_cap_on_attention_is_refused_where_the_other_is_computed(tmp_path: Path) -> None:
    """Implementations disagree on whether Gemma 3 has one."""
    gemma = {"architectures": ["Gemma3ForCausalLM"], **SMALL}
    assert read_config(tmp_path, gemma | {"final_logit_softcapping": 30.0}, {}).logit_softcap == 30.0
    with pytest.raises(UnsupportedModel, match=r"attn_logit_softcapping 50\.0"):
        read_config(tmp_path, gemma | {"attn_logit_softcapping": 50.0}, {})
