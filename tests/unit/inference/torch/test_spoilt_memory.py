"""Keys and values that are not finite stay with the sequence that wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference.adapters.torch import native_runner, torch_runner
from inference.adapters.torch.loading import ModelConfig
from inference.adapters.torch.lora import Lora, LoraPair, projection_shape
from inference.adapters.torch.runner import RunnerOptions, build_runner

from .steps import batch

TEXT = np.random.default_rng(4).integers(3, 160, size=40).tolist()


def spoilt_adapter(_path: Path, config: ModelConfig) -> Lora:
    """An adapter that makes every key and value of the last layer NaN."""
    pairs = {}
    for projection in ("k_proj", "v_proj", "q_proj"):
        out, into = projection_shape(config, projection)
        pairs[config.layers - 1, projection] = LoraPair(torch.full((4, into), torch.nan), torch.ones(out, 4))
    return pairs


@pytest.mark.parametrize(
    ("precision", "kv"), [("float32", "auto"), ("float32", "int8"), ("auto", "auto"), ("auto", "int8")]
)
def test_neighbours_and_successors_are_untouched(
    llama: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, precision: Any, kv: Any
) -> None:
    for module in (native_runner, torch_runner):
        monkeypatch.setattr(module, "read_adapter", spoilt_adapter)
    options = RunnerOptions(llama[0], precision=precision, kv_precision=kv, num_blocks=32, threads=1)
    runner = build_runner(options)
    alone = runner.forward(batch([(0, 0, TEXT)])).clone()
    adapter = runner.load_adapter(Path("spoilt"))
    beside = runner.forward(batch([(1, 0, TEXT), (0, 0, TEXT)], adapters=[adapter, 0])).clone()
    assert not beside[: len(TEXT)].isfinite().all()
    assert torch.equal(beside[len(TEXT) :], alone)
    # The same blocks, every position of which was spoilt, in a shorter text and then token by token.
    for place in range(20):
        step = [(1, place, TEXT[place : place + 1])]
        assert torch.allclose(runner.forward(batch(step))[0], alone[place], atol=1e-3), place
    runner.close()
