"""LoRA adapters: several in one batch, each equal to its merged model; and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers as hf

from inference.adapters.torch.loading import AdapterMismatch
from inference.adapters.torch.runner import RunnerOptions, build_runner

from .steps import batch, relative_error

TEXT = np.random.default_rng(4).integers(3, 160, size=40).tolist()
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def write_adapter(llama: tuple[Path, Any], folder: Path, seed: int, **settings: Any) -> Any:
    """Save a random adapter; the model with it merged in."""
    torch.manual_seed(seed)
    base = hf.LlamaForCausalLM.from_pretrained(llama[0], dtype=torch.float32)
    model = peft.get_peft_model(base, peft.LoraConfig(init_lora_weights=False, **settings))
    model.save_pretrained(folder)
    return model.merge_and_unload().eval()


@pytest.fixture(scope="module")
def adapters(llama: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Any]]:
    root = tmp_path_factory.mktemp("adapters")
    kinds: list[dict[str, Any]] = [
        {"r": 4, "lora_alpha": 8, "target_modules": ALL},
        {"r": 6, "lora_alpha": 3, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
    ]
    return [(root / str(i), write_adapter(llama, root / str(i), i, **kind)) for i, kind in enumerate(kinds)]


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.05)])
@pytest.mark.usefixtures("kernels")
def test_mixed_batch_equals_merged_models(
    llama: tuple[Path, Any], adapters: list[tuple[Path, Any]], precision: Any, tolerance: float
) -> None:
    folder, plain = llama
    runner = build_runner(RunnerOptions(folder, precision=precision, num_blocks=64))
    slots = [runner.load_adapter(path) for path, _ in adapters]
    parts = [(0, 0, TEXT[:10]), (1, 0, TEXT[:13]), (2, 0, TEXT[5:25]), (3, 0, TEXT[:10])]
    logits = runner.forward(batch(parts, adapters=[slots[0], 0, slots[1], slots[1]]))
    models = [adapters[0][1], plain, adapters[1][1], adapters[1][1]]
    expected = []
    for model, (_, _, tokens) in zip(models, parts, strict=True):
        with torch.inference_mode():
            expected.append(model(torch.tensor([tokens])).logits[0])
    assert relative_error(logits, torch.cat(expected)) < tolerance
    assert relative_error(logits[:10], expected[3]) > 10 * tolerance, "the adapters must differ for this to mean much"


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.usefixtures("kernels")
def test_unloaded_slot_is_gone_and_others_stay(
    llama: tuple[Path, Any], adapters: list[tuple[Path, Any]], precision: Any
) -> None:
    runner = build_runner(RunnerOptions(llama[0], precision=precision, num_blocks=64))
    first, second = (runner.load_adapter(path) for path, _ in adapters)
    before = runner.forward(batch([(0, 0, TEXT)], adapters=[second])).clone()
    runner.unload_adapter(first)
    assert torch.equal(runner.forward(batch([(0, 0, TEXT)], adapters=[second])), before)
    with pytest.raises(KeyError):
        runner.unload_adapter(first)
    assert runner.load_adapter(adapters[0][0]) not in (first, second)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "IA3"}, "only LORA"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_unsupported_adapter_is_named(
    llama: tuple[Path, Any], adapters: list[tuple[Path, Any]], tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    for file in adapters[0][0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | change))
    runner = build_runner(RunnerOptions(llama[0], precision="float32", num_blocks=4))
    with pytest.raises(AdapterMismatch, match=words):
        runner.load_adapter(tmp_path)


def test_adapter_of_another_shape_or_none_is_refused(llama: tuple[Path, Any], tmp_path: Path) -> None:
    runner = build_runner(RunnerOptions(llama[0], precision="float32", num_blocks=4))
    with pytest.raises(AdapterMismatch, match=r"adapter_config\.json"):
        runner.load_adapter(tmp_path)
    config = hf.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, vocab_size=160
    )
    model = peft.get_peft_model(hf.LlamaForCausalLM(config), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    model.save_pretrained(tmp_path)
    with pytest.raises(AdapterMismatch, match="shapes"):
        runner.load_adapter(tmp_path)
