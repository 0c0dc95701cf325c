"""What holding answers to a grammar costs a decoding step, on SmolLM2 and this machine's CPU.

`python -m bench.engine.constrained` prints a table, then one JSON line. Two engines share one model and take turns step
by step, the same prompts in both, one with constraints and one without, so whatever else the machine does hits both
alike. When a constrained answer ends, another starts in both. Steps that read prompts are not counted. A case's share
is the mean of the differences, the 5% at either end left out, over the median step without; the figure is the largest.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from inference.adapters.model_files import SMOLLM2
from inference.adapters.tokenizer import load_text_model
from inference.adapters.torch.constraints.compiler import Compiler
from inference.adapters.torch.event_queue import EventQueue
from inference.adapters.torch.generation import Generation
from inference.adapters.torch.runner import RunnerOptions, build_runner
from inference.adapters.torch.runner_api import BLOCK_SIZE, ModelRunner, StepBatch
from inference.adapters.torch.sampling_table import SamplingTable
from inference.adapters.torch.stepping import Stepper
from inference.core.blocks import BlockPool
from inference.core.port import Constraint, ConstraintKind, EngineRequest, SamplingParams
from inference.core.scheduling.scheduled_step import Limits
from inference.core.scheduling.scheduler import Scheduler
from inference.core.templating import Turn

STREAMS = (1, 16)
TARGET = 0.05
CONTEXT = 512
ORDER = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{6}$"},
        "status": {"enum": ["new", "paid", "packed", "shipped", "delivered", "returned"]},
        "placed_on": {"type": "string", "format": "date"},
        "customer": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 3, "maxLength": 60},
                "email": {"type": "string", "format": "email"},
                "address": {
                    "type": "object",
                    "properties": {
                        "street": {"type": "string"},
                        "city": {"type": "string"},
                        "postcode": {"type": "string", "pattern": "^[0-9]{5}$"},
                        "country": {"type": "string", "minLength": 2, "maxLength": 2},
                    },
                    "required": ["street", "city", "postcode", "country"],
                },
            },
            "required": ["name", "address"],
        },
        "lines": {
            "type": "array",
            "minItems": 2,
            "maxItems": 12,
            "items": {
                "type": "object",
                "properties": {
                    "product": {"type": "string"},
                    "quantity": {"type": "integer", "minimum": 1, "maximum": 100},
                    "price": {"type": "number", "minimum": 0},
                    "gift": {"type": "boolean"},
                    "note": {"anyOf": [{"type": "string", "maxLength": 120}, {"type": "null"}]},
                },
                "required": ["product", "quantity", "price"],
            },
        },
        "total": {"type": "number", "minimum": 0},
    },
    "required": ["id", "status", "customer", "lines", "total"],
}
CONTACTS = (
    r"(Name: [A-Z][A-Za-z .'-]{1,40}\nPhone: \+[0-9]{1,3} [0-9]{3} [0-9]{4,8}\n"
    r"Email: [a-z0-9._]+@[a-z0-9-]+\.(com|org|net)\nNote: [^\n]{0,120}\n\n)+"
)
CONSTRAINTS = {
    "JSON schema": Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(ORDER)),
    "JSON mode": Constraint(ConstraintKind.JSON_OBJECT),
    "regex": Constraint(ConstraintKind.REGEX, CONTACTS),
}
GOODS = ("bread", "a violin", "maps", "paint", "shoes", "a lamp", "tea", "books")
MORE = ("a bicycle", "soap", "a tent", "pens", "a clock", "cheese", "rope", "seeds")
DRAWING = {"greedy": {"temperature": 0.0}, "sampled": {"temperature": 1.0}}


class Lane:
    """One engine's loop on its own part of the runner's blocks."""

    def __init__(self, runner: ModelRunner, first_block: int, blocks: int, streams: int) -> None:
        scheduler = Scheduler(Limits(streams, CONTEXT + streams, CONTEXT), BlockPool(blocks, BLOCK_SIZE))
        self._stepper = Stepper(_Shifted(runner, first_block), scheduler, SamplingTable(streams), streams)

    def enter(self, request: EngineRequest, grammar: Any) -> Generation:
        """Start an answer."""
        generation = Generation(request, EventQueue(), 0.0, grammar)
        self._stepper.add(generation)
        return generation

    def leave(self, generation: Generation) -> None:
        """End an answer, if it has not ended."""
        self._stepper.cancel(generation)

    def step(self) -> tuple[float, int]:
        """Seconds of one step, and tokens that it ran."""
        table, rows = self._stepper.scheduler.table, self._stepper.scheduler.rows
        ran = int((table.length[rows] - table.computed[rows]).sum())
        waiting = len(self._stepper.scheduler.waiting)
        began = time.perf_counter()
        self._stepper.step()
        return time.perf_counter() - began, ran if not waiting else -1


class _Shifted:
    """A runner some of whose blocks belong to someone else."""

    def __init__(self, runner: ModelRunner, first_block: int) -> None:
        self._runner = runner
        self._first_block = first_block

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def forward(self, batch: StepBatch) -> Any:
        """See ModelRunner.forward."""
        return self._runner.forward(replace(batch, block_tables=batch.block_tables + self._first_block))


@dataclass(frozen=True)
class Case:
    """Seconds of pairs of steps: without and with constraint."""

    free: np.ndarray[Any, np.dtype[np.float64]]
    held: np.ndarray[Any, np.dtype[np.float64]]

    @property
    def share(self) -> float:
        """What the constraint adds, over a step without; the mean of all but the extremes of the differences."""
        more = np.sort(self.held - self.free)
        cut = len(more) // 20
        return float(more[cut : len(more) - cut].mean() / np.median(self.free))


def requests(prompts: list[list[int]], drawing: dict[str, Any]) -> Iterator[EngineRequest]:
    """Endlessly, every one with a seed of its own."""
    number = 0
    while True:
        sampling = SamplingParams(max_tokens=CONTEXT, ignore_eos=True, seed=number, **drawing)
        yield EngineRequest(str(number), tuple(prompts[number % len(prompts)]), sampling)
        number += 1


def compare(
    lanes: tuple[Lane, Lane], streams: int, wanted: Iterator[EngineRequest], made: tuple[Constraint, Any], steps: int
) -> Case:
    """Run both lanes in turns until `steps` pairs of steps decoded `streams` answers each."""
    free, held = lanes
    constraint, grammar = made
    running: list[tuple[Generation, Generation]] = []
    pairs: list[tuple[float, float]] = []
    while len(pairs) < steps:
        for pair in [pair for pair in running if not all(generation.unfinished for generation in pair)]:
            running.remove(pair)
            free.leave(pair[0])
            held.leave(pair[1])
        while len(running) < streams:
            request = next(wanted)
            bound = replace(request, sampling=replace(request.sampling, constraint=constraint))
            running.append((free.enter(request, None), held.enter(bound, grammar)))
        order = (free, held) if len(pairs) % 2 else (held, free)
        took = {id(lane): lane.step() for lane in order}
        (free_s, free_ran), (held_s, held_ran) = took[id(free)], took[id(held)]
        if free_ran == held_ran == streams:
            pairs.append((free_s, held_s))
    for pair in running:
        free.leave(pair[0])
        held.leave(pair[1])
    columns = np.array(pairs)
    return Case(columns[:, 0], columns[:, 1])


def measure(arguments: argparse.Namespace) -> dict[int, dict[str, float]]:
    """The share that each case adds, by streams; prints a line for each."""
    path = SMOLLM2.path()
    text = load_text_model(path)
    prompts = [
        list(text.encode_chat([Turn("user", f"Give me an order for {what} and who placed it.")]))
        for what in (*GOODS, *MORE)
    ]
    half = max(STREAMS) * CONTEXT // BLOCK_SIZE
    runner = build_runner(RunnerOptions(path, num_blocks=2 * half, threads=arguments.threads))
    vocabulary = [text.tokenizer.token_bytes(token) for token in range(text.tokenizer.vocab_size)]
    compiler = Compiler(vocabulary, runner.spec.vocab_size, runner.spec.eos_ids, arguments.threads)
    print(f"{'constraint':<13}{'drawing':<9}{'streams':>7}{'free ms':>9}{'held ms':>9}{'more':>8}")
    shares: dict[int, dict[str, float]] = {streams: {} for streams in STREAMS}
    for name, constraint in CONSTRAINTS.items():
        made = constraint, compiler.compile(constraint)
        for drawing, params in DRAWING.items():
            for streams in STREAMS:
                lanes = Lane(runner, 0, half, streams), Lane(runner, half, half, streams)
                case = compare(lanes, streams, requests(prompts, params), made, arguments.steps)
                shares[streams][f"{name}, {drawing}"] = round(case.share, 4)
                times = f"{np.median(case.free) * 1e3:>9.2f}{np.median(case.held) * 1e3:>9.2f}"
                print(f"{name:<13}{drawing:<9}{streams:>7}{times}{case.share:>8.1%}", flush=True)
    runner.close()
    return shares


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.engine.constrained")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=150, help="pairs of steps for each line of the table")
    shares = measure(parser.parse_args())
    figures = [
        {
            "name": f"mask_overhead_share_{streams}",
            "value": max(cases.values()),
            "unit": "share",
            "target": TARGET,
            "cases": cases,
        }
        for streams, cases in shares.items()
    ]
    print(json.dumps({"bench": "engine-constrained", "figures": figures}))


if __name__ == "__main__":
    main()
