"""Host milliseconds a step: the overlapped stepper and the whole engine over a runner that computes nothing.

On a device the host plans and launches a step while the one before runs, so this is what a step can never be shorter
than. Not in it: what CUDA's driver takes to launch a graph, and to copy a few kilobytes each way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from inference.adapters.torch.config import TorchEngineConfig
from inference.adapters.torch.cuda.graphs import DecodeGraphs
from inference.adapters.torch.cuda.inputs import Ints, pack
from inference.adapters.torch.cuda.launching import Launched
from inference.adapters.torch.cuda.overlapped import OverlappedStepper
from inference.adapters.torch.engine import Parts, TorchEngine
from inference.adapters.torch.event_queue import EventQueue
from inference.adapters.torch.generation import Generation
from inference.adapters.torch.runner_api import BLOCK_SIZE, LogitsSummary, ModelSpec, StepBatch
from inference.adapters.torch.sampling_table import SamplingTable
from inference.core.blocks import BlockPool
from inference.core.port import EngineRequest, SamplingParams
from inference.core.scheduling.scheduled_step import Limits
from inference.core.scheduling.scheduler import Scheduler

STREAMS = (1, 64, 128)
PROMPT, ANSWER = 512, 256
VOCAB, CONTEXT = 128256, 8192
# What a step may take at 64 streams for 12,000 tokens a second, prompts left out: see docs/engine-cuda.md.
BUDGET_MS = 3.4


class IdleRunner:
    """A LaunchingRunner that packs a step's inputs as the CUDA runner does, and draws token 7 for everyone."""

    def __init__(self, streams: int) -> None:
        self.block_size = BLOCK_SIZE
        self.num_blocks = streams * (-(-(PROMPT + ANSWER) // BLOCK_SIZE) + 2) + 64
        self.max_drawn = 4096
        self.spec = ModelSpec("idle", "r1", "llama", 32, VOCAB, CONTEXT, (1,), 131072, "none", "cpu")
        self._drawn = torch.full((self.max_drawn,), 7)
        ones = torch.ones(self.max_drawn)
        self._summary = LogitsSummary(self._drawn, -ones, ones, ones, ones)
        network: Any = SimpleNamespace(device=torch.device("cpu"))
        memory: Any = SimpleNamespace(scrap_slot=self.num_blocks * BLOCK_SIZE)
        self._graphs = DecodeGraphs(network, memory, self._drawn, CONTEXT // BLOCK_SIZE, 128)
        self.steps = 0

    def launch(self, batch: StepBatch, sources: Ints) -> Launched:
        """See LaunchingRunner."""
        self.steps += 1
        rows = len(batch.logits_rows)
        graph = self._graphs.fitting(rows) if rows == len(batch.token_ids) else None
        if graph is not None:
            graph._fill(batch, sources)
        else:
            pack(batch, sources)
        s = self._summary
        part = LogitsSummary(
            s.best[:rows], s.best_logprob[:rows], s.margin[:rows], s.entropy[:rows], s.logsumexp[:rows]
        )
        return Launched(torch.empty(0), part, self._drawn[:rows])

    def forward(self, batch: StepBatch) -> torch.Tensor:
        """Not called: no request here makes steps wait."""
        raise NotImplementedError

    def candidates(self, *arguments: Any) -> Any:
        """Not called, as above."""
        raise NotImplementedError

    def draw_rows(self, *arguments: Any) -> torch.Tensor:
        """Not called: all answers here are greedy."""
        raise NotImplementedError

    def summarize(self, logits: torch.Tensor) -> LogitsSummary:
        """Not called, as above."""
        raise NotImplementedError

    def load_adapter(self, path: Path) -> int:
        """Not called."""
        raise NotImplementedError

    def unload_adapter(self, slot: int) -> None:
        """Not called."""
        raise NotImplementedError

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """Nothing to copy."""

    def close(self) -> None:
        """Nothing to free."""


def stepper_ms(streams: int) -> float:
    """Median milliseconds of a decode step of the stepper alone."""
    runner: Any = IdleRunner(streams)
    limits = Limits(streams, streams + PROMPT, PROMPT + ANSWER)
    scheduler = Scheduler(limits, BlockPool(runner.num_blocks, BLOCK_SIZE))
    stepper = OverlappedStepper(runner, scheduler, SamplingTable(streams), streams)
    for number in range(streams):
        stepper.add(Generation(_request(number), EventQueue(), time.monotonic()))
    while any(scheduler.table.length[scheduler.rows] <= PROMPT) or len(scheduler.waiting):
        stepper.step()
    taken = []
    while len(scheduler.rows) == streams:
        began = time.perf_counter()
        stepper.step()
        taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


async def engine_ms(streams: int) -> float:
    """Milliseconds a step of the whole engine, with a reader for each answer on the event loop beside its thread."""
    runner: Any = IdleRunner(streams)
    config = TorchEngineConfig(
        model_path=Path("idle"), max_running=streams, step_tokens=streams + PROMPT, kv_tokens=runner.num_blocks * 16
    )
    engine = TorchEngine(config, Parts(lambda: runner, None, lambda: [b"x"] * VOCAB))
    await engine.start()
    started = 0
    begun: list[tuple[float, int]] = []
    ended: list[tuple[float, int]] = []

    async def read(number: int) -> None:
        nonlocal started
        first = True
        async for _event in engine.generate(_request(number)):
            started += first
            if first and started == streams:
                begun.append((time.perf_counter(), runner.steps))
            first = False
        ended.append((time.perf_counter(), runner.steps))

    await asyncio.gather(*(read(number) for number in range(streams)))
    await engine.close()
    (began, first), (end, last) = begun[0], ended[0]
    return 1000 * (end - began) / (last - first)


def _request(number: int) -> EngineRequest:
    prompt = tuple(np.random.default_rng(number).integers(8, VOCAB, PROMPT).tolist())
    params = SamplingParams(max_tokens=ANSWER, temperature=0.0, ignore_eos=True)
    return EngineRequest(str(number), prompt, params)


def main() -> None:
    """See the module."""
    argparse.ArgumentParser(prog="python -m bench.engine.host", description=__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    figures = []
    print(f"{'streams':>8}{'stepper':>10}{'engine':>10}   (milliseconds a decode step; budget {BUDGET_MS} at 64)")
    for streams in STREAMS:
        stepper, engine = stepper_ms(streams), asyncio.run(engine_ms(streams))
        print(f"{streams:>8}{stepper:>10.2f}{engine:>10.2f}", flush=True)
        for name, value in (("stepper", stepper), ("engine", engine)):
            target = BUDGET_MS if streams == 64 else None
            figures.append(
                {"name": f"host_{name}_ms_{streams}", "value": round(value, 3), "unit": "ms", "target": target}
            )
    print(json.dumps({"bench": "host", "figures": figures}))


if __name__ == "__main__":
    main()
