"""On a real device: graphs, device memory, and steps that do not wait. The kernels' own tests run there too.

Those of tests/unit/inference/cuda use the device where there is one; this file holds what only a device can show.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from bench.gpu.model import LLAMA3_8B, random_checkpoint
from inference.adapters.torch.cuda.runner import CudaRunner
from inference.adapters.torch.loading import Checkpoint
from inference.adapters.torch.torch_runner import TorchRunner
from tests.unit.inference.torch.steps import batch, relative_error

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkpoint():
    """A small model of random weights with the shapes' proportions of the large one."""
    torch.manual_seed(0)
    small = dataclasses.replace(
        LLAMA3_8B, layers=4, hidden=1024, intermediate=3584, heads=8, kv_heads=2, vocab_size=4096, eos_ids=(1,)
    )
    return random_checkpoint(dataclasses.replace(small, windows=(0,) * 4), torch.device("cuda"))


@pytest.mark.parametrize("precision", ["bfloat16", "fp8", "int4", "int8"])
def test_graphs_give_what_kernels_launched_one_by_one_give(checkpoint, precision: str) -> None:
    """At every batch size up to the next: the same runner with its graphs taken away."""
    runner = CudaRunner(checkpoint, torch.device("cuda"), precision, 256, graph_rows=16)
    runner.forward(batch([(s, 0, [5 + s, 6, 7]) for s in range(16)]))
    for count in (1, 2, 3, 8, 11, 16):
        step = batch([(s, 3, [9 + s]) for s in range(count)])
        replayed = runner.forward(step).clone()
        graphs, runner._graphs._graphs = runner._graphs._graphs, {}
        launched = runner.forward(step)
        runner._graphs._graphs = graphs
        assert relative_error(replayed, launched) < (0.1 if precision == "fp8" else 0.02)


def test_logits_are_near_the_plain_torch_runners(checkpoint) -> None:
    """In bfloat16 on both sides; weights are drawn anew for each, so both draw from the same seed."""

    class Kept:
        def __init__(self, weight) -> None:
            self.shape, self.bits, self._dense = weight.shape, 16, weight.dense()

        def dense(self) -> torch.Tensor:
            return self._dense

        def grouped(self) -> None:
            return None

    kept = Checkpoint(checkpoint.config, {name: Kept(w) for name, w in checkpoint.weights.items()}, "kept")
    device = torch.device("cuda")
    runner, reference = (
        CudaRunner(kept, device, "bfloat16", 256, graph_rows=4),
        TorchRunner(kept, device, torch.bfloat16, 256),
    )
    for step in (batch([(0, 0, list(range(70))), (1, 0, [3, 4])]), batch([(0, 70, [5]), (1, 2, [6])])):
        assert relative_error(runner.forward(step), reference.forward(step)) < 0.05


def test_launching_does_not_wait_for_the_device(checkpoint) -> None:
    """With a second of work before it in the queue, a step is launched in a fraction of that."""
    runner = CudaRunner(checkpoint, torch.device("cuda"), "bfloat16", 256, graph_rows=4)
    step = batch([(0, 0, [5]), (1, 0, [6])])
    none = np.full(2, -1, np.int32)
    runner.launch(step, none)
    torch.cuda.synchronize()
    torch.cuda._sleep(int(2e9))
    began = time.perf_counter()
    runner.launch(step, none)
    launched = time.perf_counter() - began
    torch.cuda.synchronize()
    assert launched < 0.25 < time.perf_counter() - began


@pytest.mark.timeout(580)
def test_the_benchmark_runs_from_a_plain_checkout() -> None:
    command = [sys.executable, "-m", "bench.gpu", "--quick", "--precision", "fp8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=550, check=True)
    names = {figure["name"] for figure in json.loads(done.stdout.splitlines()[-1])["figures"]}
    assert {"gpu_copy_tb_s", "gpu_fp8_tok_s_1", "gpu_fp8_tok_s_64", "gpu_fp8_ttft_ms_64"} <= names
