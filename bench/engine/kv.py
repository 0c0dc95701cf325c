"""What the precision of KV memory costs and gives, over short and long contexts: `python -m bench.engine.kv`.

Decode steps of the runner alone, forward and greedy choice in a plain loop. One sequence is read and the others are
copies of its blocks, so that 64 contexts of 2,000 tokens are there in seconds. The precisions take turns, and of each
the quickest step of all rounds counts: every step does the same work, and what else the machine does only adds to it.
`--own-time` takes one thread's processor time instead, where the machine does much else. Prints a table, then one JSON
line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.engine.quality import step
from bench.engine.workload import STREAMS, make_work
from inference.adapters.torch.runner import KvPrecision, RunnerOptions, build_runner
from inference.adapters.torch.runner_api import BLOCK_SIZE, ModelRunner

KINDS: dict[str, KvPrecision] = {"float16": "auto", "int8": "int8"}
CONTEXTS = (100, 2000)
# A measurement ends after so many steps or seconds.
STEPS, SECONDS = 40, 1.5
CHUNK = 512
Clock = Callable[[], float]


def blocks_for(context: int) -> int:
    """Blocks that a sequence holds: its context and the steps that are measured."""
    return (context + STEPS) // BLOCK_SIZE + 1


def fill(runner: ModelRunner, streams: int, context: int) -> None:
    """Give `streams` sequences the same `context` tokens, in blocks that lie one sequence after the other."""
    width = blocks_for(context)
    tokens = np.random.default_rng(7).integers(3, 40000, size=context).tolist()
    for at in range(0, context, CHUNK):
        runner.forward(step([(at, tokens[at : at + CHUNK])], [0], width))
    runner.copy_blocks([(block, s * width + block) for s in range(1, streams) for block in range(width)])


def step_ms(runner: ModelRunner, streams: int, context: int, clock: Clock) -> float:
    """The quickest step in which every stream decodes one token."""
    width = blocks_for(context)
    taken: list[float] = []
    tokens = [5] * streams
    while len(taken) < STEPS and sum(taken) < SECONDS:
        started = clock()
        batch = step([(context + len(taken), [token]) for token in tokens], list(range(streams)), width)
        tokens = runner.summarize(runner.forward(batch)).best.tolist()
        taken.append(clock() - started)
    return min(taken) * 1e3


def measure(path: Path, streams: int, context: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of the quickest step, by kind."""
    clock, threads = (time.thread_time, 1) if arguments.own_time else (time.perf_counter, arguments.threads)
    best = dict.fromkeys(KINDS, float("inf"))
    for _ in range(arguments.rounds):
        for kind, precision in KINDS.items():
            blocks = streams * blocks_for(context)
            runner = build_runner(RunnerOptions(path, kv_precision=precision, num_blocks=blocks, threads=threads))
            fill(runner, streams, context)
            best[kind] = min(best[kind], step_ms(runner, streams, context, clock))
            runner.close()
    return best


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.engine.kv")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, action="append", help=f"default: {STREAMS}")
    parser.add_argument("--context", type=int, action="append", help=f"default: {CONTEXTS}")
    parser.add_argument("--own-time", action="store_true", help="one thread's processor time")
    arguments = parser.parse_args()
    path = Path(make_work(1, 1).path)
    figures = []
    print(
        f"{'context':>8}{'streams':>8}" + "".join(f"{kind + ' ms':>12}{'tok/s':>8}" for kind in KINDS) + f"{'ratio':>8}"
    )
    for context in arguments.context or CONTEXTS:
        for streams in arguments.streams or STREAMS:
            taken = measure(path, streams, context, arguments)
            columns = "".join(f"{ms:>12.2f}{streams / ms * 1e3:>8.0f}" for ms in taken.values())
            print(f"{context:>8}{streams:>8}{columns}{taken['float16'] / taken['int8']:>8.2f}", flush=True)
            for kind, ms in taken.items():
                name = f"kv_{kind}_{context}_tokens_{streams}_streams"
                figures.append({"name": name, "value": round(streams / ms * 1e3, 1), "unit": "tok/s"})
    print(json.dumps({"bench": "engine_kv", "figures": figures}))


if __name__ == "__main__":
    main()
