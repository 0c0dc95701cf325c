"""The torch runner agrees with transformers, whatever way a text is cut into steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference.adapters.torch.logits import summarize
from inference.adapters.torch.runner import RunnerOptions, build_runner
from inference.adapters.torch.runner_api import ModelRunner

from .steps import batch, relative_error

TEXT = np.random.default_rng(3).integers(3, 160, size=60).tolist()


def load(folder: Path) -> ModelRunner:
    return build_runner(RunnerOptions(folder, precision="float32", num_blocks=64))


def reference(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([tokens])).logits[0]
    return logits.float()


def test_whole_prompt_agrees_with_transformers(family: tuple[Path, Any]) -> None:
    folder, model = family
    logits = load(folder).forward(batch([(0, 0, TEXT)]))
    assert logits.dtype == torch.float32
    assert relative_error(logits, reference(model, TEXT)) < 1e-4


def test_chunks_decode_and_drafts_agree_with_transformers(family: tuple[Path, Any]) -> None:
    """A prompt in two chunks, then one token, then four at once, beside another sequence that decodes."""
    folder, model = family
    runner = load(folder)
    expected, other = reference(model, TEXT), reference(model, TEXT[5:40])
    runner.forward(batch([(0, 0, TEXT[:20]), (1, 0, TEXT[5:38])]))
    second = runner.forward(batch([(0, 20, TEXT[20:45]), (1, 33, TEXT[38:39])]))
    assert relative_error(second[:25], expected[20:45]) < 1e-4
    assert relative_error(second[25], other[33]) < 1e-4
    third = runner.forward(batch([(1, 34, TEXT[39:40]), (0, 45, TEXT[45:46])]))
    assert relative_error(third, torch.stack([other[34], expected[45]])) < 1e-4
    fourth = runner.forward(batch([(0, 46, TEXT[46:50])], rows=[3, 1]))
    assert relative_error(fourth, expected[[49, 47]]) < 1e-4


def test_rejected_draft_is_overwritten(llama: tuple[Path, Any]) -> None:
    folder, model = llama
    runner = load(folder)
    runner.forward(batch([(0, 0, TEXT[:10])]))
    runner.forward(batch([(0, 10, [7, 8, 9])]))
    logits = runner.forward(batch([(0, 10, TEXT[10:20])]))
    assert relative_error(logits, reference(model, TEXT[:20])[10:]) < 1e-4


def test_copied_blocks_continue_alike(llama: tuple[Path, Any]) -> None:
    folder, model = llama
    runner = load(folder)
    runner.forward(batch([(0, 0, TEXT[:20])]))
    fork = batch([(1, 20, TEXT[20:22])])
    runner.copy_blocks([(7, 15), (6, 14)])  # sequence 0's first two blocks to sequence 1's
    assert relative_error(runner.forward(fork), reference(model, TEXT[:22])[20:]) < 1e-4


def test_summary_is_the_softmax_of_each_row() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 200) * 3
    logits[1, 17] = logits[1].max()  # equals: the first wins
    logits[2, 40:] = -torch.inf  # masked by a constraint
    summary = summarize(logits)
    for row in range(5):
        probabilities = logits[row].double().softmax(-1)
        ranked = probabilities.sort(descending=True).values
        assert summary.best[row] == int(np.argmax(logits[row].numpy()))
        assert summary.best_logprob[row] == pytest.approx(float(ranked[0].log()), abs=1e-4)
        assert summary.margin[row] == pytest.approx(float((ranked[0] / ranked[1]).log()), abs=1e-4)
        seen = probabilities[probabilities > 0]
        assert summary.entropy[row] == pytest.approx(float(-(seen * seen.log()).sum()), abs=1e-4)
        assert summary.logsumexp[row] == pytest.approx(float(logits[row].double().logsumexp(-1)), abs=1e-4)


def test_logits_are_the_callers_to_change(llama: tuple[Path, Any]) -> None:
    """As penalties, biases and grammars do, outside of the runner."""
    runner = build_runner(RunnerOptions(llama[0], precision="float32", num_blocks=8))
    logits = runner.forward(batch([(0, 0, [5])]))
    logits[0, 3] = -torch.inf
    assert logits[0, 3] == -torch.inf
