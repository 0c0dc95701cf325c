"""The kernels for a CPU without AVX-512: built, loaded, and held to the same torch twin."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf

from inference.adapters.torch.loading import load_checkpoint
from inference.adapters.torch.logits import best_of, candidates
from inference.adapters.torch.native_runner import NativeRunner
from inference.adapters.torch.runner_api import StepBatch
from inference.adapters.torch.torch_runner import TorchRunner
from inference.native import build, library
from tests.unit.inference.engine.masks import words_of

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="names x86-64 instruction sets"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    config = hf.LlamaConfig(
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=160,
        initializer_range=0.1,
    )
    hf.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_kernels_without_avx512_are_the_same_model(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "libheadrace.so"
    build.build(path, "x86-64-v3")
    kernels = library.load(path)
    assert b'"avx2"' in kernels.hr_build()
    assert b"avx512" not in kernels.hr_build()
    tokens = np.random.default_rng(1).integers(3, 160, size=40).astype(np.int32)
    step = StepBatch(
        token_ids=tokens,
        positions=np.arange(40, dtype=np.int32),
        query_starts=np.array([0, 40], dtype=np.int32),
        context_lens=np.array([40], dtype=np.int32),
        block_tables=np.array([[2, 0, 1]], dtype=np.int32),
        logits_rows=np.arange(40, dtype=np.int32),
        adapter_ids=np.zeros(1, dtype=np.int32),
    )
    checkpoint = load_checkpoint(model)
    expected = TorchRunner(checkpoint, torch.device("cpu"), torch.float32, 3).forward(step)
    for precision, tolerance in (("bfloat16", 0.03), ("int8", 0.05), ("int4", 0.4)):
        runner = NativeRunner(kernels, checkpoint, precision, 3, 2)
        error = (runner.forward(step) - expected).pow(2).mean().sqrt() / expected.std()
        assert error < tolerance, precision
        allowed = words_of(np.random.default_rng(2).random(expected.shape) < 0.3)
        for mask in (None, allowed):
            assert torch.equal(runner.summarize(expected, mask).best, best_of(expected, mask))
        some = torch.arange(0, 40, 3), torch.full((14,), 0.7), 9, allowed
        assert torch.equal(runner.candidates(expected, *some).values, candidates(expected, *some).values)
        runner.close()
