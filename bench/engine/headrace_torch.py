"""The torch engine behind its port: `python -m bench.engine.headrace_torch` < work."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bench.engine.workload import Result, Work, measure, measure_long, serve
from inference.adapters.torch.config import TorchEngineConfig
from inference.adapters.torch.engine import TorchEngine, build
from inference.core.port import EngineDelta, EngineRequest, SamplingParams


async def _answer(engine: TorchEngine, number: str, prompt: list[int], tokens: int) -> int:
    sampling = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    request = EngineRequest(number, tuple(prompt), sampling)
    return sum([len(e.tokens) async for e in engine.generate(request) if isinstance(e, EngineDelta)])


async def _answer_timed(engine: TorchEngine, number: str, prompt: list[int], tokens: int) -> tuple[float, float]:
    """Seconds to the first token, and tokens a second after it."""
    sampling = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    began = time.perf_counter()
    times = [
        (time.perf_counter(), len(event.tokens))
        async for event in engine.generate(EngineRequest(number, tuple(prompt), sampling))
        if isinstance(event, EngineDelta) and event.tokens
    ]
    rest = sum(count for _, count in times[1:])
    return times[0][0] - began, rest / (times[-1][0] - times[0][0])


def run(work: Work, result: Result) -> None:
    """Start, warm up with one short answer, measure."""
    loop = asyncio.new_event_loop()
    engine = build(TorchEngineConfig(model_path=Path(work.path), threads=work.threads, prefix_cache=False))
    loop.run_until_complete(engine.start())
    loop.run_until_complete(_answer(engine, "first", work.prompts[-1], 1))
    result.ready_at = time.time()
    numbers = iter(range(10_000))

    def generate(prompts: list[list[int]]) -> int:
        async def together() -> int:
            answers = (_answer(engine, str(next(numbers)), prompt, work.tokens) for prompt in prompts)
            return sum(await asyncio.gather(*answers))

        return loop.run_until_complete(together())

    measure(work, result, generate)
    measure_long(
        *(work, result),
        lambda prompt, tokens: loop.run_until_complete(_answer_timed(engine, str(next(numbers)), prompt, tokens)),
    )
    loop.run_until_complete(engine.close())


if __name__ == "__main__":
    serve(run)
