"""The kernels for a CPU without AVX-512: built, loaded, and held to the same torch twin."""

from __future__ import annotations

import ctypes
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
from tests.unit.inference.torch.attention_twin import Attention, shape
from tests.unit.inference.torch.steps import batch, relative_error

pytestmark = [
    # A compiler's work, which nobody but this module waits for.
    pytest.mark.timeout(600),
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


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("kernels") / "libheadrace.so"
    build.build(path, "x86-64-v3")
    return library.load(path)


@pytest.mark.parametrize(("kept", "bound"), [("int8", 1e-3), ("float16", 1e-4)])
def test_attention_without_avx512_is_its_torch_twin(kernels: ctypes.CDLL, kept: str, bound: float) -> None:
    attention = Attention(kernels, shape(6, 2, 96, window=40), kept)
    rng = torch.Generator().manual_seed(2)
    for step in (batch([(0, 0, [0] * 50), (1, 0, [0] * 17)]), batch([(1, 17, [0]), (0, 50, [0] * 3)])):
        tokens = len(step.token_ids)
        actual, expected = attention.both(step, tuple(torch.randn(tokens, n, 96, generator=rng) for n in (6, 2, 2)))
        assert relative_error(actual, expected) < bound
    attention.native.close()


def test_kernels_without_avx512_are_the_same_model(model: Path, kernels: ctypes.CDLL) -> None:
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
