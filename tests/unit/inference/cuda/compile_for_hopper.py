"""Runs a network's step with every kernel launch replaced by its compilation; prints the kernels' names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)
sys.path.insert(0, str(Path(__file__).parents[4]))

import numpy as np
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from inference.adapters.torch.cuda.grouped import GroupedWeight
from inference.adapters.torch.cuda.inputs import pack, view
from inference.adapters.torch.cuda.kernels.draws import draw_rows
from inference.adapters.torch.cuda.kernels.grouped import dequantize, grouped_product
from inference.adapters.torch.cuda.kernels.skinny import skinny_product
from inference.adapters.torch.cuda.kernels.summary import summarize
from inference.adapters.torch.cuda.memory import DevicePages
from inference.adapters.torch.cuda.network import Network
from inference.adapters.torch.cuda.rows import FLOAT8, Rows
from inference.adapters.torch.cuda.transfer import to_device
from inference.adapters.torch.cuda.tuning import CANDIDATES, GROUPED_CANDIDATES
from inference.adapters.torch.loading import Checkpoint, ModelConfig
from inference.adapters.torch.loading.checkpoint import expected_shapes
from inference.adapters.torch.runner_api import StepBatch
from inference.adapters.torch.sampling import Filters

# What a block may use of shared memory on this chip, in bytes.
SHARED = 227 * 1024
CPU = torch.device("cpu")


class Hopper:
    """A driver that knows its target and nothing else."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


class Weight:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.bits = shape, 16

    def dense(self) -> torch.Tensor:
        return torch.zeros(self.shape, dtype=torch.bfloat16)

    def grouped(self) -> None:
        return None


def compile_instead(launch):
    def run(self, *arguments, grid, warmup, **more):
        compiled = launch(self, *arguments, grid=grid, warmup=True, **more)
        assert compiled.asm["cubin"]
        assert compiled.metadata.shared <= SHARED, (self.__name__, compiled.metadata.shared)
        print(self.__name__)
        return compiled

    return run


def main() -> None:
    driver.set_active(Hopper())
    JITFunction.run = compile_instead(JITFunction.run)
    config = ModelConfig(
        architecture="qwen3",
        name="shapes",
        layers=2,
        hidden=256,
        intermediate=512,
        heads=8,
        kv_heads=2,
        head_dim=128,
        vocab_size=9000,
        context_length=256,
        norm_eps=1e-5,
        rope_theta=1e4,
        eos_ids=(1,),
        qk_norm=True,
        windows=(0, 100),
        tied=True,
    )
    shapes = expected_shapes(config)
    checkpoint = Checkpoint(config, {name: Weight(shape) for name, shape in shapes.items()}, "none")
    for precision in ("bfloat16", "fp8", "int4"):
        network = Network(checkpoint, CPU, precision)
        memory = DevicePages(config, 32, FLOAT8 if precision == "fp8" else torch.bfloat16, CPU)
        # A prompt beside few and beside many decode rows: contexts in parts and whole.
        for singles in (2, 300):
            step = batch([40] + [1] * singles)
            flat, sizes = pack(step, np.full(len(step.token_ids), -1, np.int32))
            network.forward(
                view(to_device(flat, CPU), sizes, all_logits=False), torch.zeros(1, dtype=torch.int64), memory
            )
        # A batch of one: Triton compiles sizes of 1 apart.
        flat, sizes = pack(batch([1]), np.full(1, -1, np.int32))
        network.forward(view(to_device(flat, CPU), sizes, all_logits=True), torch.zeros(1, dtype=torch.int64), memory)
    ones = torch.ones(3)
    filters = Filters(ones, ones.int(), ones, ones)
    draw_rows(torch.zeros(3, 128256), ones.long(), filters, ones.double())
    for rows in (1, 3):
        summarize(torch.zeros(rows, 9000))
    for rows, tried in CANDIDATES.items():
        for shape in tried:
            for dtype in (torch.bfloat16, FLOAT8):
                scales = torch.ones(4096) if dtype == FLOAT8 else None
                x = Rows(torch.zeros(rows, 4096, dtype=dtype), scales if scales is None else scales[:rows])
                weight = torch.zeros(4096, 4096, dtype=dtype)
                skinny_product(x, weight, scales, torch.zeros(4096), torch.bfloat16, shape)
    # Blocks of 8 bits are half as wide, so that the widest shape alone says that all fit.
    for bits, candidates in ((4, GROUPED_CANDIDATES), (8, {512: GROUPED_CANDIDATES[512][-1:]})):
        words, pairs = torch.zeros(4096 * bits // 32 // 32, 4096, 32, dtype=torch.int32), torch.zeros(4096 // 32, 4096)
        weight = GroupedWeight(words, pairs.int(), 4096, 4096, bits)
        dequantize(weight, torch.bfloat16)
        for rows, tried in candidates.items():
            for shape in tried:
                grouped_product(torch.zeros(rows, 4096).bfloat16(), weight, None, torch.bfloat16, shape)


def batch(lengths: list[int]) -> StepBatch:
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    zeros = np.zeros(starts[-1], np.int32)
    tables = np.zeros((len(lengths), 16), np.int32)
    return StepBatch(
        zeros, zeros, starts, np.array(lengths, np.int32), tables, starts[1:] - 1, np.zeros(len(lengths), np.int32)
    )


if __name__ == "__main__":
    main()
