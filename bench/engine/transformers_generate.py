"""transformers' own generation, one static batch in bfloat16: `python -m bench.engine.transformers_generate` < work."""

from __future__ import annotations

import time
from pathlib import Path

import torch
import transformers

from bench.engine.workload import Result, Work, measure, serve


def run(work: Work, result: Result) -> None:
    """Load, warm up with one short answer, measure."""
    torch.set_num_threads(work.threads)
    path = Path(work.path)
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.bfloat16)

    def generate(prompts: list[list[int]], tokens: int = work.tokens) -> int:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            answers = model.generate(
                ids, attention_mask=mask, do_sample=False, min_new_tokens=tokens, max_new_tokens=tokens, pad_token_id=0
            )
        return int(answers[:, width:].numel())

    generate(work.prompts[-1:], 1)
    result.ready_at = time.time()
    measure(work, result, generate)


if __name__ == "__main__":
    serve(run)
