"""A launched step asks the device for nothing on its way: each such question would cost the host a whole step."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton")

from bench.gpu.model import LLAMA3_8B, random_checkpoint
from inference.adapters.torch.cuda import drawing
from inference.adapters.torch.cuda.runner import CudaRunner
from inference.adapters.torch.sampling_table import SamplingTable
from inference.core.port import SamplingParams
from tests.unit.inference.torch.steps import batch

# Operations whose result, or its shape, the host must know.
_WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::is_nonzero"}


class Unwaiting(TorchDispatchMode):
    """Fails where an operation would wait for a device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0]
        assert name not in _WAITING, name
        if name in ("aten::index", "aten::index_put_"):
            assert all(index is None or index.dtype not in (torch.bool, torch.uint8) for index in args[1]), "mask"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["bfloat16", "fp8", "int4"])
def test_a_launched_step_waits_for_nothing(device: torch.device, precision: str) -> None:
    """Prompts, answers in a graph and beside prompts, and draws of every kind."""
    small = dataclasses.replace(
        LLAMA3_8B, layers=1, hidden=32, intermediate=32, heads=2, kv_heads=1, head_dim=16, vocab_size=64, eos_ids=(1,)
    )
    config = dataclasses.replace(small, context_length=128, windows=(0,))
    runner = CudaRunner(random_checkpoint(config, device), device, precision, 24, graph_rows=4)
    table = SamplingTable(3)
    for request_row, params in enumerate(
        ({"temperature": 0.0}, {"temperature": 0.8}, {"temperature": 1.0, "top_k": 5})
    ):
        table.enter(request_row, SamplingParams(max_tokens=4, **params), seed=1, stream=0, prompt=(3,), emitted=())
    steps = [
        (batch([(0, 0, [5, 6, 7]), (1, 0, [9, 8])], rows=[2, 4]), [0, 2]),
        (batch([(0, 3, [5]), (1, 2, [9])]), [0, 1]),
        (batch([(1, 3, [9]), (2, 0, [4, 4]), (0, 4, [5])], rows=[0, 2, 3]), [1, 2, 0]),
    ]
    for step, request_rows in steps:
        sources = np.full(len(step.token_ids), -1, np.int32)
        with Unwaiting():
            launched = runner.launch(step, sources)
            fetch = drawing.draw(runner, launched, table, np.array(request_rows), np.zeros(len(request_rows), np.int64))
        assert len(fetch.wait().tokens) == len(request_rows)


def test_the_check_finds_what_waits() -> None:
    """Or the test above would say nothing."""
    numbers = torch.arange(3)
    for question in (lambda: int(numbers[0]), lambda: numbers[numbers > 1], numbers.nonzero):
        with pytest.raises(AssertionError), Unwaiting():
            question()
