"""Drafts for the real model, from one cut from its own layers: the same text, the same chances, off when dear."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client
import pytest
import torch
from numpy.typing import NDArray

from bench.engine.cut_draft import cut_draft
from bench.engine.workload import make_work
from inference.adapters.model_files import SMOLLM2
from inference.adapters.tokenizer import load_text_model
from inference.adapters.torch.config import TorchEngineConfig
from inference.adapters.torch.engine import Parts, TorchEngine, build
from inference.adapters.torch.runner import RunnerOptions, build_runner
from inference.adapters.torch.runner_api import ModelRunner, StepBatch
from inference.core.port import EngineDelta, EngineRequest, EngineSummary, SamplingParams

BLOCKS = 256
# Two of the thirty layers left out: two thirds of its guesses hold. Six layers know next to nothing.
FAIR, POOR = [*range(14), *range(16, 30)], [*range(6)]


@pytest.fixture(scope="module")
def drafts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("drafts")
    return {
        name: cut_draft(SMOLLM2.path(), folder / f"{name}.gguf", layers)
        for name, layers in (("fair", FAIR), ("poor", POOR))
    }


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draft whether it pays or not."""
    monkeypatch.setattr("inference.core.speculation.PayOff.TRIAL", 10**9)


@asynccontextmanager
async def serving(engine: TorchEngine) -> AsyncIterator[TorchEngine]:
    await engine.start()
    try:
        yield engine
        assert engine.load().kv_used == 0
    finally:
        await engine.close()


def plain_or(draft: Path | None) -> TorchEngine:
    way: dict[str, Any] = {} if draft is None else {"speculation": "draft", "draft_path": draft}
    return build(TorchEngineConfig(model_path=SMOLLM2.path(), kv_tokens=16 * BLOCKS, max_queued=600, **way))


async def ask(engine: TorchEngine, prompt: list[int], sampling: SamplingParams) -> tuple[list[int], EngineSummary]:
    tokens: list[int] = []
    async for event in engine.generate(EngineRequest("r", tuple(prompt), sampling)):
        if isinstance(event, EngineDelta):
            tokens += event.tokens
        else:
            summary = event
    return tokens, summary


def counted(held: str) -> float:
    name = "headrace_inference_draft_tokens_total"
    return prometheus_client.REGISTRY.get_sample_value(name, {"held": held}) or 0.0


@pytest.mark.usefixtures("always")
async def test_drafts_change_no_text_greedy_or_sampled(drafts: dict[str, Path]) -> None:
    work = [(prompt, (0.0, 0.8)[i % 2], i) for i, prompt in enumerate(make_work(1, 2).prompts[::8])]
    texts, summaries = [], []
    before = counted("true"), counted("false")
    for draft in (None, drafts["fair"]):
        async with serving(plain_or(draft)) as engine:
            wanted = [ask(engine, p, SamplingParams(32, t, seed=s, ignore_eos=True)) for p, t, s in work]
            answers = await asyncio.gather(*wanted)
        texts.append([tokens for tokens, _ in answers])
        summaries.append([summary for _, summary in answers])
    assert texts[0] == texts[1]
    drafted, held = sum(s.drafted_tokens for s in summaries[1]), sum(s.accepted_tokens for s in summaries[1])
    assert drafted > held > drafted / 3
    assert (counted("true") - before[0], counted("false") - before[1]) == (held, drafted - held)


@pytest.mark.usefixtures("always")
async def test_drafted_samples_have_the_models_own_chances(drafts: dict[str, Path]) -> None:
    """Pearson's test of the second and third token, by their rank, against the probabilities of the model alone.

    The seeds are fixed, so the outcome is too; 27.9 is the 1 in 10,000 point of 7 degrees of freedom.
    """
    prompt = load_text_model(SMOLLM2.path()).tokenizer.encode("Once upon a time there was a", first=True)
    async with serving(plain_or(drafts["fair"])) as engine:
        wanted = [ask(engine, prompt, SamplingParams(3, 1.0, seed=seed, ignore_eos=True)) for seed in range(200)]
        answers = await asyncio.gather(*wanted)
    drafted, held = sum(s.drafted_tokens for _, s in answers), sum(s.accepted_tokens for _, s in answers)
    assert drafted > held > 0
    after: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for tokens, _ in answers:
        for place in (1, 2):
            after[tuple(tokens[:place])][tokens[place]] += 1
    runner = build_runner(RunnerOptions(SMOLLM2.path(), num_blocks=4))
    edges = [0, 1, 2, 4, 8, 16, 64, 256, runner.spec.vocab_size]
    seen, expected = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for before, tokens in after.items():
        chances = chances_after(runner, [*prompt, *before])
        order = np.argsort(-chances)
        rank = np.argsort(order)
        for token, count in tokens.items():
            seen[np.searchsorted(edges, rank[token], side="right") - 1] += count
            expected += count * np.add.reduceat(chances[order], edges[:-1])
    runner.close()
    assert expected.min() > 5
    assert ((seen - expected) ** 2 / expected).sum() < 27.9


def chances_after(runner: ModelRunner, tokens: list[int]) -> NDArray[np.float64]:
    """Every token's probability after `tokens`."""
    count = len(tokens)
    batch = StepBatch(
        token_ids=np.array(tokens, np.int32),
        positions=np.arange(count, dtype=np.int32),
        query_starts=np.array([0, count], np.int32),
        context_lens=np.array([count], np.int32),
        block_tables=np.arange(4, dtype=np.int32)[None],
        logits_rows=np.array([count - 1], np.int32),
        adapter_ids=np.zeros(1, np.int32),
    )
    chances: NDArray[np.float64] = runner.forward(batch)[0].double().softmax(-1).numpy()
    return chances


class Clock:
    """Stands still but for what the runners' steps are said to cost."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Priced:
    """A runner whose steps take the time of `cost`."""

    def __init__(self, runner: ModelRunner, clock: Clock, cost: float) -> None:
        self._runner, self._clock, self.cost = runner, clock, cost

    def forward(self, batch: StepBatch) -> torch.Tensor:
        self._clock.now += self.cost
        return self._runner.forward(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)


@asynccontextmanager
async def priced(
    draft: Path, cost: float, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[TorchEngine, Priced, Clock]]:
    """An engine whose own steps cost 1, and its draft model's `cost`, by the clock that it looks at."""
    clock = Clock()
    monkeypatch.setattr("inference.adapters.torch.stepping.time", clock)
    config = TorchEngineConfig(model_path=SMOLLM2.path(), kv_tokens=16 * BLOCKS, speculation="draft", draft_path=draft)
    model, small = (
        Priced(build_runner(RunnerOptions(path, num_blocks=BLOCKS)), clock, price)
        for path, price in ((SMOLLM2.path(), 1.0), (draft, cost))
    )
    async with serving(TorchEngine(config, Parts(lambda: model, lambda: small, lambda: [b""]))) as engine:
        yield engine, small, clock


PROMPT = make_work(1, 2).prompts[3]
LONG = SamplingParams(120, 0.0, ignore_eos=True)


async def test_a_poor_draft_is_soon_left_alone(drafts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    async with priced(drafts["poor"], 0.2, monkeypatch) as (engine, _, clock):
        _, first = await ask(engine, PROMPT, LONG)
        assert 0 < first.drafted_tokens < 60
        began = clock.now
        _, second = await ask(engine, PROMPT, LONG)
        assert second.drafted_tokens < 15
        assert clock.now - began < 120 * 1.03, "what is left of trying costs less than 3%"


async def test_a_draft_comes_back_when_it_pays(drafts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    async with priced(drafts["fair"], 2.0, monkeypatch) as (engine, draft, clock):
        _, dear = await ask(engine, PROMPT, LONG)
        assert 0 < dear.drafted_tokens < 100
        draft.cost = 0.01
        await ask(engine, PROMPT, LONG)
        began = clock.now
        _, cheap = await ask(engine, PROMPT, LONG)
        assert cheap.accepted_tokens > 50
        assert clock.now - began < 120 * 0.6
