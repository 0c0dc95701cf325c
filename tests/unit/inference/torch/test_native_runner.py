"""The native kernels do what their torch twin does, and a row's logits do not depend on what runs beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.adapters.torch.native_runner import NativeRunner
from inference.adapters.torch.runner import RunnerOptions, build_runner
from inference.adapters.torch.runner_api import ModelRunner

from .conftest import SMALL
from .quantized_twin import QuantizedTwin
from .steps import batch, relative_error

pytestmark = pytest.mark.usefixtures("kernels")
TEXT = np.random.default_rng(3).integers(3, 160, size=60).tolist()


def load(folder: Path, precision: Any = "int8", kv_precision: Any = "auto") -> ModelRunner:
    runner = build_runner(RunnerOptions(folder, precision=precision, kv_precision=kv_precision, num_blocks=64))
    assert isinstance(runner, NativeRunner)
    assert runner.spec.precision == precision
    return runner


@pytest.mark.parametrize("precision", ["int4", "int8", "bfloat16"])
def test_agrees_with_its_torch_twin(native_family: tuple[Path, Any], precision: str) -> None:
    """A prompt, then decode beside a second prompt; what is left is rounding that fell the other way."""
    folder, _ = native_family
    native, twin = load(folder, precision), QuantizedTwin(folder, precision, 64)
    for step in (
        batch([(0, 0, TEXT[:33])]),
        batch([(0, 33, TEXT[33:34]), (1, 0, TEXT[10:27])]),
        batch([(1, 17, TEXT[27:28]), (0, 34, TEXT[34:38])], rows=[4, 0, 2]),
    ):
        actual, expected = native.forward(step), twin.forward(step)
        assert float((actual - expected).pow(2).mean().sqrt() / expected.std()) < 0.03
        assert relative_error(actual, expected) < 0.05


@pytest.fixture(scope="module", params=["auto", "int8"])
def runner(llama: tuple[Path, Any], request: pytest.FixtureRequest) -> ModelRunner:
    return load(llama[0], "int4", request.param)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_logits_do_not_depend_on_chunks_or_company(runner: ModelRunner, data: st.DataObject) -> None:
    """Bit for bit: a prompt at once and alone, against cut anywhere beside other sequences in any order."""
    prompt = TEXT[: data.draw(st.integers(2, 60))]
    alone = runner.forward(batch([(0, 0, prompt)])).clone()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(prompt) - 1), max_size=4)))
    for start, end in zip([0, *cuts], [*cuts, len(prompt)], strict=True):
        parts = [(1, start, prompt[start:end])]
        for other in range(2, 2 + data.draw(st.integers(0, 5))):
            parts.append((other, 0, TEXT[other : other + data.draw(st.integers(1, 9))]))
        order = data.draw(st.permutations(parts))
        logits = runner.forward(batch(order))
        at = sum(len(tokens) for _, _, tokens in order[: order.index(parts[0])])
        assert torch.equal(logits[at : at + end - start], alone[start:end])


def test_logits_of_more_bytes_than_the_caches_hold_are_the_same(tmp_path: Path) -> None:
    """They are written past the caches: 60 rows, each with another place in its first cache line."""
    hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL | {"vocab_size": 40_009})).save_pretrained(tmp_path)
    runner = load(tmp_path)
    together = runner.forward(batch([(0, 0, TEXT)])).clone()
    for start in range(0, 60, 10):
        assert torch.equal(runner.forward(batch([(0, start, TEXT[start : start + 10])])), together[start : start + 10])


def test_copied_blocks_continue_alike(runner: ModelRunner) -> None:
    expected = runner.forward(batch([(0, 0, TEXT[:22])]))[20:].clone()
    runner.copy_blocks([(7, 63), (6, 62)])  # sequence 0's first two blocks to sequence 7's
    assert torch.equal(runner.forward(batch([(7, 20, TEXT[20:22])])), expected)


def test_long_context_reads_every_block(llama: tuple[Path, Any]) -> None:
    """256 positions in 16 blocks, decode at the end, against float32."""
    folder, model = llama
    text = np.random.default_rng(5).integers(3, 160, size=256).tolist()
    runner = load(folder, "bfloat16")
    runner.forward(batch([(0, 0, text[:255])], rows=[0], blocks=16))
    logits = runner.forward(batch([(0, 255, text[255:])], blocks=16))
    with torch.inference_mode():
        expected = model(torch.tensor([text])).logits[0, -1:]
    assert relative_error(logits, expected) < 0.05


def test_without_kernels_plain_torch_runs(llama: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = llama
    monkeypatch.setattr("inference.native.library.load.__defaults__", (Path("nowhere/libheadrace.so"),))
    runner = build_runner(RunnerOptions(folder, num_blocks=8))
    assert runner.spec.precision == "float32"
    assert runner.forward(batch([(0, 0, TEXT[:5])])).shape == (5, 160)
