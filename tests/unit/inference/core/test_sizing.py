"""The arithmetic against what is published of real models."""

from __future__ import annotations

import json

import pytest

from inference import planning
from inference.core.gpus import GPUS, alternatives, cheaper_ways, place, plan
from inference.core.shape import SizingError
from inference.core.shape_config import precision_of, shape_of
from inference.core.sizing import GIB, Workload, kv_bytes, need, tokens_per_second

LLAMA3_8B = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MIXTRAL = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "intermediate_size": 14336,
    "vocab_size": 32000,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
QWEN3_30B = {
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_hidden_layers": 48,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
}
GEMMA3_270M = {
    "model_type": "gemma3_text",
    "hidden_size": 640,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "num_hidden_layers": 18,
    "intermediate_size": 2048,
    "vocab_size": 262144,
    "sliding_window": 512,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
}
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "num_hidden_layers": 61,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
    "max_position_embeddings": 163840,
    "tie_word_embeddings": False,
    "quantization_config": {"quant_method": "fp8"},
}
DEEPSEEK_V2_LITE = DEEPSEEK_V3 | {
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "first_k_dense_replace": 1,
    "q_lora_rank": None,
    "vocab_size": 102400,
}


@pytest.mark.parametrize(
    ("config", "weights", "active"),
    [
        (LLAMA3_8B, 8.030e9, None),
        (MIXTRAL, 46.70e9, 12.88e9),
        (QWEN3_30B, 30.53e9, 3.35e9),
        (GEMMA3_270M, 268e6, None),
        (DEEPSEEK_V3, 671.0e9, 37.5e9),
        (DEEPSEEK_V2_LITE, 15.71e9, 2.66e9),
    ],
)
def test_weights_are_those_of_the_published_models(config, weights, active):
    shape = shape_of(config)
    assert shape.weights == pytest.approx(weights, rel=0.003)
    if active is not None:
        # The published count has the input embedding too.
        assert shape.active_weights + shape.embedding_weights == pytest.approx(active, rel=0.01)


def test_grouped_queries_and_windows_shrink_the_cache():
    assert shape_of(LLAMA3_8B).kv_values(1) * 2 == 131072
    assert shape_of(LLAMA3_8B | {"num_key_value_heads": 32}).kv_values(1) * 2 == 4 * 131072
    gemma = shape_of(GEMMA3_270M)
    assert (gemma.windowed_layers, gemma.window) == (15, 512)
    assert gemma.kv_values(8192) == 2 * 256 * (3 * 8192 + 15 * 512)


def test_a_latent_cache_is_one_vector_a_token_and_every_device_holds_it():
    shape = shape_of(DEEPSEEK_V3)
    assert shape.kv_values(1) == 61 * (512 + 64)
    # Published as about 70 kB a token in 16 bits; two heads of 128 would take 25 times and more.
    assert need(shape, Workload(8192, 32)).kv == 32 * 8192 * 70272
    assert shape_of(DEEPSEEK_V3 | {"index_head_dim": 128}).kv_values(1) == 61 * (512 + 64 + 128)
    load = Workload(8192, 64, weights="fp8")
    four, eight = place(shape, load, GPUS["b200"], 4), place(shape, load, GPUS["b200"], 8)
    assert four.per_device - eight.per_device == pytest.approx(need(shape, load).weights / 8, rel=0.001)
    assert plan(shape, Workload(8192, 32, weights="fp8"), GPUS["h200"]).smallest.devices == 8


@pytest.mark.parametrize(
    ("changed", "windowed"),
    [
        ({"model_type": "qwen2", "sliding_window": 4096, "max_window_layers": 28}, 0),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 28}, 4),
        ({"model_type": "mistral", "sliding_window": 4096}, 32),
        ({"model_type": "llama", "sliding_window": 4096}, 0),
        ({"model_type": "gemma2", "sliding_window": 4096}, 16),
        ({"model_type": "cohere2", "sliding_window": 4096, "sliding_window_pattern": 4}, 24),
    ],
)
def test_windows_count_where_the_architecture_uses_them(changed, windowed):
    shape = shape_of(LLAMA3_8B | changed)
    assert shape.windowed_layers == windowed
    assert shape.kv_values(8192) == 2048 * (windowed * 4096 + (32 - windowed) * 8192)


def test_layers_without_a_cache_take_none_and_unknown_ones_are_refused():
    kinds = ["linear_attention"] * 24 + ["full_attention"] * 8
    assert shape_of(LLAMA3_8B | {"layer_types": kinds}).kv_values(100) == 2048 * 8 * 100
    assert shape_of(LLAMA3_8B | {"full_attention_interval": 4}).kv_values(100) == 2048 * 8 * 100
    with pytest.raises(SizingError, match="layer_types 'mamba'"):
        shape_of(LLAMA3_8B | {"layer_types": ["mamba"] * 32})
    with pytest.raises(SizingError, match="num_key_value_heads differs from layer to layer"):
        shape_of(LLAMA3_8B | {"num_key_value_heads": [8] * 32})


@pytest.mark.parametrize("gpu", ["t4", "v100-32"])
def test_bfloat16_is_refused_where_a_device_has_none_and_float16_named(gpu):
    shape = shape_of(LLAMA3_8B | {"num_hidden_layers": 4})
    found = plan(shape, Workload(2048, 1), GPUS[gpu])
    assert {one.obstacle for one in found.placements} == {"multiplies no bfloat16; ask for float16"}
    assert found.smallest is None
    way = cheaper_ways(found)[0]
    assert (way.load.weights, way.load.kv, way.placement.devices) == ("float16", "float16", 1)
    mixed = place(shape, Workload(2048, 1, weights="int4"), GPUS[gpu], 1)
    assert mixed.obstacle == "multiplies no bfloat16; ask for float16"
    assert place(shape, Workload(2048, 1, weights="int4", kv="float16"), GPUS[gpu], 1).fits


@pytest.mark.parametrize(
    ("config", "precision"),
    [
        ({"torch_dtype": "float16"}, "float16"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "int4"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, "int8"),
        ({}, "bfloat16"),
    ],
)
def test_precision_is_read_from_the_config(config, precision):
    assert precision_of(config) == precision


def test_llama_8b_fits_where_it_is_known_to():
    shape = shape_of(LLAMA3_8B)
    alone = plan(shape, Workload(8192, 4), GPUS["l4"])
    assert alone.smallest.devices == 1
    many = plan(shape, Workload(8192, 32), GPUS["l4"])
    assert many.need.kv == 32 * 8192 * 131072
    assert many.need.weights == pytest.approx(15 * GIB, rel=0.01)
    assert [one.fits for one in many.placements] == [False, False, True, True]
    assert many.smallest.devices == 4
    half = Workload(8192, 32, weights="float16", kv="float16")
    fits = {one.gpu.name: one.devices for one in alternatives(shape, half)}
    assert fits["H100"] == 1
    assert fits["T4"] == 4


def test_fp8_needs_a_device_that_has_it_and_splits_need_whole_heads():
    shape = shape_of(LLAMA3_8B)
    assert place(shape, Workload(2048, 1, weights="fp8"), GPUS["a100-80"], 1).obstacle == "multiplies no fp8"
    assert place(shape, Workload(2048, 1, weights="fp8"), GPUS["h100"], 1).fits
    odd = shape_of(LLAMA3_8B | {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64})
    split = plan(odd, Workload(2048, 1), GPUS["h100"]).placements
    assert [one.obstacle for one in split] == ["", *(f"9 heads do not split in {n}" for n in (2, 4, 8))]


def test_devices_beyond_the_key_heads_hold_the_same_cache():
    shape = shape_of(LLAMA3_8B | {"num_key_value_heads": 2})
    load = Workload(8192, 64)
    two, eight = place(shape, load, GPUS["h100"], 2), place(shape, load, GPUS["h100"], 8)
    cache = need(shape, load).kv
    assert two.per_device - eight.per_device == pytest.approx(need(shape, load).weights * (1 / 2 - 1 / 8), rel=0.001)
    assert eight.per_device > cache / 2


def test_cheaper_ways_fit_and_each_takes_fewer_devices_than_the_one_before():
    shape = shape_of(LLAMA3_8B)
    found = plan(shape, Workload(8192, 32), GPUS["l4"])
    ways = cheaper_ways(found)
    devices = [found.smallest.devices, *(way.placement.devices for way in ways)]
    assert devices == sorted(set(devices), reverse=True)
    assert devices[-1] == 1
    for way in ways:
        assert way.placement.fits
        assert need(shape, way.load).total < found.need.total
    # An 8-bit cache loses least, so it comes first where it is enough.
    assert (ways[0].load.weights, ways[0].load.kv) == ("bfloat16", "fp8")
    assert cheaper_ways(plan(shape, Workload(8192, 1), GPUS["h100"])) == ()


def test_eight_bits_of_cache_have_a_scale_for_each_key_and_value():
    assert kv_bytes(2 * 30 * 3 * 64, 64, "float16") == 23040
    assert kv_bytes(2 * 30 * 3 * 64, 64, "int8") == 11880
    assert need(shape_of(LLAMA3_8B), Workload(8192, 32, kv="int8")).kv == 32 * 8192 * (65536 + 1024)


def test_most_concurrent_is_the_edge_of_what_fits():
    shape = shape_of(LLAMA3_8B)
    maximum = place(shape, Workload(8192, 32), GPUS["h100"], 1).max_concurrent
    assert place(shape, Workload(8192, maximum), GPUS["h100"], 1).max_concurrent == pytest.approx(maximum, abs=2)
    assert not place(shape, Workload(8192, maximum + 3), GPUS["h100"], 1).fits


def test_pace_follows_the_bytes_that_a_step_reads():
    shape = shape_of(LLAMA3_8B)
    alone = tokens_per_second(shape, Workload(1024, 1), 4.8e12)
    assert alone == pytest.approx(0.7 * 4.8e12 / (7.5e9 * 2), rel=0.02)
    assert tokens_per_second(shape, Workload(1024, 64), 4.8e12) > 30 * alone
    mixtral = shape_of(MIXTRAL)
    assert mixtral.weights_read(1) == mixtral.active_weights
    assert mixtral.weights_read(256) == pytest.approx(mixtral.weights - mixtral.embedding_weights, rel=0.001)


def test_config_that_says_too_little_is_refused_by_field():
    with pytest.raises(SizingError, match="num_hidden_layers is missing"):
        shape_of({"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 5})


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_attention_heads": -1}, "num_attention_heads is -1"),
        ({"num_experts": 4, "num_experts_per_tok": 8}, "num_experts_per_tok is 8, there are 4"),
        ({"text_config": [1]}, "text_config is not an object"),
        ({"kv_lora_rank": 512}, "qk_rope_head_dim is missing"),
        ({"sliding_window": [4096]}, "sliding_window differs"),
    ],
)
def test_config_that_no_model_has_is_refused_by_field(changed, named):
    with pytest.raises(SizingError, match=named):
        shape_of(LLAMA3_8B | changed)


def test_need_grows_with_what_is_asked():
    shape = shape_of(LLAMA3_8B)
    small, large = need(shape, Workload(2048, 4)), need(shape, Workload(4096, 4))
    assert large.kv == 2 * small.kv
    assert need(shape, Workload(2048, 4, weights="int4")).weights < small.weights / 2
    assert need(shape, Workload(2048, 4, kv="fp8")).kv == small.kv / 2


def test_command_prints_and_exits_by_what_it_found(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA3_8B))
    assert planning.main([str(tmp_path), "--gpu", "H100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is True
    assert found["parameters"] == pytest.approx(8.03e9, rel=0.001)
    assert planning.main([str(tmp_path), "--gpu", "T4", "--weights", "float16", "--concurrency", "2000"]) == 1
    printed = capsys.readouterr().out
    assert "most at a time" in printed
    assert "too little memory" in printed
    assert planning.main([str(tmp_path), "--gpu", "L4"]) == 0
    assert "--kv fp8" in capsys.readouterr().out
    assert planning.main([str(tmp_path), "--gpu", "T4", "--context", "512", "--concurrency", "1"]) == 1
    assert "--weights float16" in capsys.readouterr().out
    assert planning.main([str(tmp_path), "--gpu", "T4", "--weights", "float16", "--concurrency", "1"]) == 0
    capsys.readouterr()
    assert planning.main([str(tmp_path / "none")]) == 65
    assert "'none' does not exist in" in capsys.readouterr().err
    assert planning.main(["meta-llama/Llama-3.1-8B"]) == 65
    assert "nothing is downloaded: give the path of a folder" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{}")
    assert planning.main([str(tmp_path)]) == 65
    assert "hidden_size is missing" in capsys.readouterr().err
