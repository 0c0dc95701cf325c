"""What mixtures of experts, stretched positions and soft caps need beyond the common agreement with transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import save_file
from structlog.testing import capture_logs

from inference.adapters.torch.experts import mixed, product, route
from inference.adapters.torch.loading import AdapterMismatch, load_checkpoint
from inference.adapters.torch.loading.folder_config import read_config
from inference.adapters.torch.lora import read_adapter
from inference.adapters.torch.runner import RunnerOptions, build_runner
from inference.adapters.torch.torch_runner import TorchRunner

from .conftest import SMALL, write_model
from .steps import batch, relative_error

TEXT = np.random.default_rng(8).integers(3, 160, size=60).tolist()


def reference(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([tokens])).logits[0]
    return logits.float()


def test_what_the_kernels_lack_runs_in_torch_and_the_reason_is_logged(torch_family: tuple[Path, Any]) -> None:
    folder, model = torch_family
    with capture_logs() as logged:
        runner = build_runner(RunnerOptions(folder, num_blocks=8))
    assert isinstance(runner, TorchRunner)
    reason = next(line["reason"] for line in logged if line["event"] == "engine.native_kernels_not_used")
    assert reason.endswith("24 rotated dimensions of 32" if folder.name == "phi4" else "a mixture of experts")
    assert relative_error(runner.forward(batch([(0, 0, TEXT)])), reference(model, TEXT)) < 1e-4


@pytest.mark.parametrize("active", [1, 2, 5])
def test_a_rows_experts_are_the_same_bits_in_any_company(active: int) -> None:
    """Alone, beside one other, or among many: the rows that share its experts are chance."""
    torch.manual_seed(4)
    rows, gate = torch.randn(67, 96), torch.randn(5, 96)
    down = torch.randn(5, 96, 96)

    def block(x: torch.Tensor) -> torch.Tensor:
        routing = route(x, gate, active, normalized=True)
        return mixed(x, routing, lambda expert, taken: product(taken, down[expert]))

    whole = block(rows)
    for count in (1, 2, 3, 5, 16, 31, 66):
        for start in (0, 1, 33 if count <= 34 else 1):
            assert torch.equal(block(rows[start : start + count]), whole[start : start + count])
    order = torch.randperm(67)
    assert torch.equal(block(rows[order]), whole[order])


def test_each_expert_is_run_once_with_all_its_rows() -> None:
    torch.manual_seed(5)
    rows, gate = torch.randn(40, 8), torch.randn(6, 8)
    routing = route(rows, gate, 2, normalized=False)
    seen: list[tuple[int, int]] = []

    def run(expert: int, taken: torch.Tensor) -> torch.Tensor:
        seen.append((expert, len(taken)))
        return taken

    mixed(rows, routing, run)
    chosen = routing.experts.flatten().bincount(minlength=6).tolist()
    assert seen == [(expert, count) for expert, count in enumerate(chosen) if count]


def write_lora(folder: Path, place: str, rows: int) -> Path:
    """A LoRA adapter of rank 2 for one projection of 128 inputs."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    shapes = {"A": (2, 128), "B": (rows, 2)}
    named = {f"base_model.model.model.{place}.lora_{half}.weight": torch.ones(shapes[half]) for half in shapes}
    save_file(named, folder / "adapter_model.safetensors")
    return folder


def test_experts_take_no_adapter_and_the_rest_does(tmp_path: Path) -> None:
    write_model("qwen2moe", tmp_path / "model")  # its layer 1 is ordinary
    config = load_checkpoint(tmp_path / "model").config
    assert read_adapter(write_lora(tmp_path / "a", "layers.0.self_attn.q_proj", 128), config)
    assert read_adapter(write_lora(tmp_path / "b", "layers.1.mlp.gate_proj", 96), config)
    with pytest.raises(AdapterMismatch, match="the experts of layer 0 take no adapters"):
        read_adapter(write_lora(tmp_path / "c", "layers.0.mlp.gate_proj", 96), config)


def test_soft_caps_agree_with_transformers(tmp_path: Path) -> None:
    torch.manual_seed(2)
    config = hf.Gemma3TextConfig(**SMALL, head_dim=32, sliding_window=24, final_logit_softcapping=2.0)
    model = hf.Gemma3ForCausalLM(config).float().eval()
    model.save_pretrained(tmp_path)
    with capture_logs() as logged:
        runner = build_runner(RunnerOptions(tmp_path, num_blocks=8))
    assert relative_error(runner.forward(batch([(0, 0, TEXT)])), reference(model, TEXT)) < 1e-4
    assert any("soft-capped logits" in str(line.get("reason")) for line in logged)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
ROPES: list[dict[str, Any]] = [
    {"rope_type": "default", "rope_theta": 500.0},
    {"rope_type": "linear", "factor": 3.0},
    {"rope_type": "dynamic", "factor": 3.0},
    YARN,
    YARN | {"rope_theta": 1e6, "original_max_position_embeddings": 32768, "factor": 2.5},
    YARN | {"beta_fast": 8.0, "beta_slow": 2.0, "truncate": False},
    YARN | {"beta_fast": 1.0, "beta_slow": 1.0},
    YARN | {"attention_factor": 0.7},
    YARN | {"mscale": 0.8, "mscale_all_dim": 0.5},
    YARN | {"factor": 0.5},
    {
        **{"rope_type": "longrope", "original_max_position_embeddings": 64, "factor": 4.0},
        **{"short_factor": [1.0 + i / 9 for i in range(16)], "long_factor": [2.0 + i for i in range(16)]},
    },
    {
        **{"rope_type": "longrope", "original_max_position_embeddings": 256, "attention_factor": 1.3},
        **{"short_factor": [1.5] * 16, "long_factor": [2.0] * 16},
    },
]


@pytest.mark.parametrize("rope", ROPES, ids=lambda rope: rope["rope_type"])
def test_rotary_positions_are_those_of_transformers(rope: dict[str, Any], tmp_path: Path) -> None:
    given = {"rope_theta": 10_000.0} | rope
    rotary = hf.models.llama.modeling_llama.LlamaRotaryEmbedding(hf.LlamaConfig(**SMALL, rope_parameters=dict(given)))
    for written in ({"rope_parameters": given}, {"rope_theta": given["rope_theta"], "rope_scaling": rope}):
        config = read_config(tmp_path, {"architectures": ["LlamaForCausalLM"], **SMALL, **written}, {})
        np.testing.assert_allclose(config.inverse_frequencies(0), rotary.inv_freq.numpy(), rtol=2e-6)
        assert config.attention_scale == pytest.approx(32**-0.5 * rotary.attention_scaling**2)


def test_context_is_what_positions_were_stretched_to(tmp_path: Path) -> None:
    """YaRN's configs keep the length before; LongRoPE's long factors would change what was already read."""

    def context(**rope: Any) -> int:
        root = {"architectures": ["LlamaForCausalLM"], **SMALL, "rope_parameters": rope}
        return read_config(tmp_path, root, {}).context_length

    factors = {"short_factor": [1.0] * 16, "long_factor": [2.0] * 16}
    assert context(**YARN) == 256
    assert context(**YARN | {"original_max_position_embeddings": 256}) == 1024
    assert context(rope_type="longrope", original_max_position_embeddings=64, **factors) == 64
    assert context(rope_type="dynamic", factor=8.0) == 256


WINDOWS: list[tuple[str, type, dict[str, Any]]] = [
    ("Qwen2ForCausalLM", hf.Qwen2Config, {"sliding_window": 16}),
    ("Qwen2ForCausalLM", hf.Qwen2Config, {"sliding_window": 16, "use_sliding_window": True}),
    ("Qwen2ForCausalLM", hf.Qwen2Config, {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 2}),
    ("Qwen3ForCausalLM", hf.Qwen3Config, {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1}),
    ("Qwen2MoeForCausalLM", hf.Qwen2MoeConfig, {"sliding_window": 16, "use_sliding_window": True}),
    (
        *("Qwen2MoeForCausalLM", hf.Qwen2MoeConfig),
        {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1},
    ),
    ("Gemma3ForCausalLM", hf.Gemma3TextConfig, {"sliding_window": 16, "sliding_window_pattern": 2}),
    ("Gemma3ForCausalLM", hf.Gemma3TextConfig, {"sliding_window": 16}),
]


@pytest.mark.parametrize(("named", "reference_config", "fields"), WINDOWS)
def test_windows_are_those_of_transformers(
    named: str, reference_config: type, fields: dict[str, Any], tmp_path: Path
) -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32} if "Moe" in named else {}
    root = {"architectures": [named], **SMALL, **fields, **experts}
    expected = reference_config(**SMALL, **fields).layer_types
    windows = read_config(tmp_path, root, {}).windows
    assert windows == tuple(16 if kind == "sliding_attention" else 0 for kind in expected)
