"""What guessing ahead is worth to one stream: `python -m bench.engine.speculation` prints a table, then one JSON line.

Two tasks for SmolLM2: copying a text, which prompt lookup was made for, and open questions at temperature 1, where
little repeats. Three engines, one after the other on each prompt, so that a busy moment of the machine meets all of
them: without drafts, with prompt lookup, and with a draft model cut from SmolLM2's own layers, which is a poor one. All
must write the same text.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pydoc_data.topics
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.engine.cut_draft import cut_draft
from bench.engine.workload import make_work
from inference.adapters.tokenizer import load_text_model
from inference.adapters.torch.config import TorchEngineConfig
from inference.adapters.torch.engine import TorchEngine, build
from inference.adapters.torch.runner import Precision
from inference.core.port import EngineDelta, EngineRequest, EngineSummary, SamplingParams
from inference.core.speculation import PayOff

DRAFT_LAYERS = (0, 5, 10, 15, 20, 25, 29)
# Two of the thirty left out: two thirds of its guesses hold, at nearly the model's own price.
FAIR_LAYERS = (*range(14), *range(16, 30))
TEXTS = 20
_TOPICS = ("assert", "break", "del", "pass", "continue", "global")
_MAX = 1500


@dataclass
class Seen:
    """One engine on one task. Rates are tokens a second, one an answer."""

    rates: list[float] = field(default_factory=list)
    drafted: int = 0
    accepted: int = 0

    @property
    def acceptance(self) -> float:
        """Share of the guesses that held."""
        return self.accepted / self.drafted if self.drafted else 0.0


def tasks(path: Path, prompts: int) -> dict[str, list[tuple[int, ...]]]:
    """Prompts by task. Copying begins a text for the second time; how it goes on stands in the prompt."""
    text = load_text_model(path)
    copying = []
    for topic in _TOPICS[:prompts]:
        passage = " ".join(pydoc_data.topics.topics[topic][:_MAX].split())
        copying.append(text.encode_text(f"{passage}\n\nThe same text once more:\n\n{passage[:120]}"))
    return {"copying": copying, "open": [tuple(prompt) for prompt in make_work(1, 2).prompts[::9][:prompts]]}


async def answer(
    engine: TorchEngine, prompt: tuple[int, ...], sampling: SamplingParams, seen: Seen
) -> tuple[list[int], float]:
    """The answer's tokens, and the seconds from its first token to its last."""
    said: list[int] = []
    first = 0.0
    async for event in engine.generate(EngineRequest("bench", prompt, sampling)):
        if isinstance(event, EngineDelta):
            first = first or time.perf_counter()
            said += event.tokens
        elif isinstance(event, EngineSummary):
            seen.drafted += event.drafted_tokens
            seen.accepted += event.accepted_tokens
    return said, time.perf_counter() - first


async def measure(engines: dict[str, TorchEngine], arguments: argparse.Namespace) -> dict[tuple[str, str], Seen]:
    """By engine and task. Every engine must write the same."""
    seen = {(engine, task): Seen() for engine in engines for task in ("copying", "open")}
    work = tasks(Path(make_work(1, 2).path), arguments.prompts)
    for round_ in range(arguments.rounds):
        for task, prompt in [(task, prompt) for task, prompts in work.items() for prompt in prompts]:
            temperature = 0.0 if task == "copying" else 1.0
            sampling = SamplingParams(arguments.tokens, temperature, ignore_eos=True, seed=round_)
            plain: list[int] = []
            for name, engine in engines.items():
                said, seconds = await answer(engine, prompt, sampling, seen[name, task])
                seen[name, task].rates.append((arguments.tokens - 1) / seconds)
                plain = plain or said
                if said != plain:
                    raise RuntimeError(f"{task}, {name}: drafts changed the text")
    return seen


async def identical(precision: Precision, draft: Path) -> int:
    """How many of 20 greedy texts of 128 tokens are the same with a draft in every step, whether it pays or not."""
    sampling = SamplingParams(128, 0.0, ignore_eos=True)
    prompts = make_work(1, 2).prompts[:TEXTS]
    PayOff.TRIAL = 10**9
    texts = []
    for way in ({}, {"speculation": "draft", "draft_path": draft}):
        model = Path(make_work(1, 2).path)
        engine = build(TorchEngineConfig(model_path=model, precision=precision, kv_tokens=8192, **way))
        await engine.start()
        answers = await asyncio.gather(*[answer(engine, tuple(prompt), sampling, Seen()) for prompt in prompts])
        await engine.close()
        texts.append([tokens for tokens, _ in answers])
    return sum(plain == drafted for plain, drafted in zip(*texts, strict=True))


async def run(arguments: argparse.Namespace) -> dict[tuple[str, str], Seen]:
    """Start the engines, measure, stop them."""
    model = Path(make_work(1, 2).path)
    with tempfile.TemporaryDirectory() as folder:
        draft = cut_draft(model, Path(folder) / "draft.gguf", DRAFT_LAYERS)
        ways: dict[str, dict[str, Any]] = {
            "without": {},
            "prompt lookup": {"speculation": "prompt_lookup"},
            "cut draft": {"speculation": "draft", "draft_path": draft},
        }
        engines = {
            name: build(TorchEngineConfig(model_path=model, kv_tokens=4096, prefix_cache=False, **way))
            for name, way in ways.items()
        }
        for engine in engines.values():
            await engine.start()
        try:
            return await measure(engines, arguments)
        finally:
            for engine in engines.values():
                await engine.close()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.engine.speculation")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompts", type=int, default=4, choices=range(1, len(_TOPICS) + 1))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", action="store_true", help="only see that drafts change no greedy text")
    arguments = parser.parse_args()
    if arguments.texts:
        with tempfile.TemporaryDirectory() as folder:
            draft = cut_draft(Path(make_work(1, 2).path), Path(folder) / "draft.gguf", FAIR_LAYERS)
            for precision in ("float32", "auto"):
                print(f"{precision}: {asyncio.run(identical(precision, draft))} of {TEXTS} texts identical", flush=True)
        return
    seen = asyncio.run(run(arguments))
    figures: list[dict[str, Any]] = []
    print(f"SmolLM2-135M-Instruct Q4_1, 1 stream, {arguments.tokens} tokens, medians\n")
    print(f"{'task':<10}{'engine':<16}{'tok/s':>8}{'times':>8}{'guesses held':>15}")
    for (engine, task), one in sorted(seen.items(), key=lambda item: item[0][1]):
        plain = seen["without", task].rates
        times = statistics.median(a / b for a, b in zip(one.rates, plain, strict=True))
        rate = statistics.median(one.rates)
        print(f"{task:<10}{engine:<16}{rate:>8.0f}{times:>8.2f}{one.accepted:>7} of{one.drafted:>5}")
        name = f"{task} {engine}".replace(" ", "_")
        figures.append({"name": f"{name}_tok_s", "value": round(rate, 1), "unit": "tok/s", "times": round(times, 3)})
        figures.append({"name": f"{name}_acceptance", "value": round(one.acceptance, 3), "unit": ""})
    print(json.dumps({"bench": "engine_speculation", "figures": figures}))


if __name__ == "__main__":
    main()
