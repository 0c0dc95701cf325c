"""Is it the same model? Logits, greedy text and perplexity against transformers in float32.

`python -m bench.engine.quality` prints a table, then one JSON line. The text that perplexity is taken on is the
language reference inside Python's own pydoc, the same for every Python 3.11.
"""

from __future__ import annotations

import json
import math
import pydoc_data.topics
from pathlib import Path

import numpy as np
import torch
import transformers

from bench.engine.workload import make_work
from inference.adapters.tokenizer import load_text_model
from inference.adapters.torch.runner import KvPrecision, Precision, RunnerOptions, build_runner
from inference.adapters.torch.runner_api import BLOCK_SIZE, ModelRunner, StepBatch

PROMPTS, TOKENS = 20, 128
PASSAGES, LENGTH = 16, 256
VARIANTS: dict[str, tuple[Precision, KvPrecision]] = {
    "float32": ("float32", "auto"),
    "float32, int8 KV": ("float32", "int8"),
    "int4 as stored": ("auto", "auto"),
    "int4 as stored, int8 KV": ("auto", "int8"),
    "bfloat16": ("bfloat16", "auto"),
    "bfloat16, int8 KV": ("bfloat16", "int8"),
}


def step(parts: list[tuple[int, list[int]]], rows: list[int], width: int) -> StepBatch:
    """A step of (first position, tokens), one a sequence; sequence s holds blocks s * width and on."""
    lengths = [len(tokens) for _, tokens in parts]
    return StepBatch(
        token_ids=np.array([t for _, tokens in parts for t in tokens], dtype=np.int32),
        positions=np.concatenate(
            [np.arange(at, at + n, dtype=np.int32) for (at, _), n in zip(parts, lengths, strict=True)]
        ),
        query_starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        context_lens=np.array([at + n for (at, _), n in zip(parts, lengths, strict=True)], dtype=np.int32),
        block_tables=np.arange(len(parts) * width, dtype=np.int32).reshape(len(parts), width),
        logits_rows=np.array(rows, dtype=np.int32),
        adapter_ids=np.zeros(len(parts), dtype=np.int32),
    )


def greedy(runner: ModelRunner, prompts: list[list[int]], count: int) -> tuple[list[list[int]], list[torch.Tensor]]:
    """Each prompt's `count` greedy tokens, all in one batch, and the logits that each was drawn from."""
    width = (max(map(len, prompts)) + count) // BLOCK_SIZE + 1
    ends = (np.cumsum([len(prompt) for prompt in prompts]) - 1).tolist()
    batch = step([(0, prompt) for prompt in prompts], ends, width)
    answers: list[list[int]] = [[] for _ in prompts]
    seen = []
    for _ in range(count):
        logits = runner.forward(batch)
        seen.append(logits.clone())
        for answer, token in zip(answers, logits.argmax(dim=-1).tolist(), strict=True):
            answer.append(token)
        parts = [(len(p) + len(a) - 1, a[-1:]) for p, a in zip(prompts, answers, strict=True)]
        batch = step(parts, list(range(len(prompts))), width)
    return answers, list(torch.stack(seen, dim=1))


def compare(runner: ModelRunner, model: transformers.PreTrainedModel, prompts: list[list[int]]) -> tuple[int, float]:
    """How many of the greedy texts transformers would have written too, and the largest relative error of a logit.

    transformers reads prompt and answer at once: if its best token is the answer's at every place, its own greedy
    text is the same, token after token.
    """
    same, worst = 0, 0.0
    for prompt, answer, logits in zip(prompts, *greedy(runner, prompts, TOKENS), strict=True):
        with torch.inference_mode():
            read = model(torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :]
        same += read.argmax(dim=-1).tolist() == answer
        worst = max(worst, float((logits - read).abs().max() / read.abs().max()))
    return same, worst


def perplexity(runner: ModelRunner, passages: list[list[int]]) -> float:
    """e to the mean loss of every token but each passage's first."""
    total = 0.0
    for passage in passages:
        logits = runner.forward(step([(0, passage)], list(range(LENGTH)), LENGTH // BLOCK_SIZE))
        total += float(torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(passage[1:]), reduction="sum"))
    return math.exp(total / (PASSAGES * (LENGTH - 1)))


def main() -> None:
    """See the module."""
    work = make_work(TOKENS, 2)
    path = Path(work.path)
    prose = "\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))
    tokens = load_text_model(path).tokenizer.encode(prose[: PASSAGES * LENGTH * 8], first=True)
    passages = [tokens[i * LENGTH : (i + 1) * LENGTH] for i in range(PASSAGES)]
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    exact = build_runner(RunnerOptions(path, precision="float32", num_blocks=PROMPTS * 16))
    same, worst = compare(exact, model, work.prompts[:PROMPTS])
    figures = [
        {"name": "logits_max_relative_error", "value": worst, "unit": "", "target": 1e-3},
        {"name": "greedy_texts_identical", "value": same, "unit": f"of {PROMPTS}", "target": PROMPTS},
    ]
    for name, (precision, kv) in VARIANTS.items():
        options = RunnerOptions(path, precision=precision, kv_precision=kv, num_blocks=LENGTH // BLOCK_SIZE)
        runner = build_runner(options)
        value = perplexity(runner, passages)
        runner.close()
        figures.append({"name": f"perplexity {name}", "value": value, "unit": ""})
    for figure in figures:
        print(f"{figure['name']:<36}{figure['value']:>12.6g} {figure['unit']}")
    print(json.dumps({"bench": "engine_quality", "figures": figures}))


if __name__ == "__main__":
    main()
