"""LoRA adapters: several in one batch, each equal to its merged model; and what does not fit is refused."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from inference.adapters.torch.loading import AdapterMismatch, load_checkpoint
from inference.adapters.torch.lora import read_adapter
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
        {
            **{"r": 4, "lora_alpha": 8, "target_modules": ALL, "use_rslora": True},
            **{"rank_pattern": {"up_proj": 2}, "alpha_pattern": {r"layers\.1\.self_attn\.\w+": 20}},
        },
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
    parts = [(0, 0, TEXT[:10]), (1, 0, TEXT[:13]), (2, 0, TEXT[5:25]), (3, 0, TEXT[:10]), (4, 0, TEXT[2:9])]
    logits = runner.forward(batch(parts, adapters=[slots[0], 0, slots[1], slots[1], slots[2]]))
    models = [adapters[0][1], plain, adapters[1][1], adapters[1][1], adapters[2][1]]
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
    first, second = (runner.load_adapter(path) for path, _ in adapters[:2])
    before = runner.forward(batch([(0, 0, TEXT)], adapters=[second])).clone()
    runner.unload_adapter(first)
    assert torch.equal(runner.forward(batch([(0, 0, TEXT)], adapters=[second])), before)
    with pytest.raises(KeyError):
        runner.unload_adapter(first)
    assert runner.load_adapter(adapters[0][0]) not in (first, second)


@pytest.mark.parametrize("precision", ["int4", "int8", "bfloat16"])
@pytest.mark.usefixtures("kernels")
def test_a_plain_answer_is_the_same_beside_an_adapter(
    llama: tuple[Path, Any], adapters: list[tuple[Path, Any]], precision: Any
) -> None:
    """Bit for bit, although steps with adapters go another way through a layer."""
    runner = build_runner(RunnerOptions(llama[0], precision=precision, num_blocks=64))
    slot = runner.load_adapter(adapters[0][0])
    alone = runner.forward(batch([(0, 0, TEXT)])).clone()
    beside = runner.forward(batch([(0, 0, TEXT), (1, 0, TEXT[:7])], adapters=[0, slot]))
    assert torch.equal(beside[: len(TEXT)], alone)
    assert not torch.equal(beside[len(TEXT) :], alone[:7])


@pytest.fixture
def copied(adapters: list[tuple[Path, Any]], tmp_path: Path) -> Path:
    """A good adapter in a folder called "tone", to be spoiled."""
    return Path(shutil.copytree(adapters[0][0], tmp_path / "tone"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "IA3"}, "only LORA"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"a_variant_of_next_year": {"x": 1}}, "a_variant_of_next_year"),
        ({"init_lora_weights": "pissa_niter_16"}, "pissa_niter_16"),
        ({"r": 0}, "r 0"),
        ({"r": 5}, "rank 5"),
        ({"rank_pattern": {"layers.1.self_attn.q_proj": 3}}, "layer 1 q_proj has shapes"),
        ({"rank_pattern": {"(": 4}}, "rank_pattern"),
        ({"lora_alpha": "much"}, "lora_alpha"),
        ({"alpha_pattern": {"q_proj": None}}, "lora_alpha None"),
    ],
)
def test_unsupported_setting_is_named(
    llama: tuple[Path, Any], copied: Path, change: dict[str, Any], words: str
) -> None:
    settings = json.loads((copied / "adapter_config.json").read_text())
    (copied / "adapter_config.json").write_text(json.dumps(settings | change))
    with pytest.raises(AdapterMismatch, match=rf"tone: adapter_.*{re.escape(words)}"):
        read_adapter(copied, load_checkpoint(llama[0]).config)


@pytest.mark.parametrize("content", ["", "[]", "{", "\udcff", '{"peft_type": "LORA"}'])
def test_settings_that_are_none_are_refused(llama: tuple[Path, Any], copied: Path, content: str) -> None:
    (copied / "adapter_config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(AdapterMismatch, match=r"tone: adapter_config\.json"):
        read_adapter(copied, load_checkpoint(llama[0]).config)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.pop("q_proj.lora_B"), "lacks A or B"),
        (lambda t: t.update({"q_proj.lora_A": t["q_proj.lora_A"][:2]}), "shapes"),
        (lambda t: t.update({"q_proj.lora_A": t["q_proj.lora_A"][0, 0]}), "shapes"),
        (lambda t: t.update({"q_proj.lora_A": t["q_proj.lora_A"] * math.nan}), "no finite floats"),
        (lambda t: t.update({"q_proj.lora_A": t["q_proj.lora_A"].to(torch.int32)}), "no finite floats"),
        (lambda t: t.update({"rotor.lora_A": t["q_proj.lora_A"].clone()}), "rotor.lora_A.weight is not a LoRA weight"),
        (lambda t: t.clear(), "no LoRA weights"),
    ],
)
def test_weights_that_do_not_fit_are_named(llama: tuple[Path, Any], copied: Path, spoil: Any, words: str) -> None:
    first = "base_model.model.model.layers.0.self_attn."
    weights = load_file(copied / "adapter_model.safetensors")
    named = {key.removeprefix(first).removesuffix(".weight"): value for key, value in weights.items() if first in key}
    spoil(named)
    save_file({f"{first}{key}.weight": value for key, value in named.items()}, copied / "adapter_model.safetensors")
    with pytest.raises(AdapterMismatch, match=rf"tone: adapter_model\.safetensors: .*{re.escape(words)}"):
        read_adapter(copied, load_checkpoint(llama[0]).config)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused(llama: tuple[Path, Any], copied: Path, share: float) -> None:
    weights = copied / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[: int(weights.stat().st_size * share)])
    with pytest.raises(AdapterMismatch, match=r"tone: adapter_model\.safetensors"):
        read_adapter(copied, load_checkpoint(llama[0]).config)


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
