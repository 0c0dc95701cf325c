"""What fails in one sequence's share of a step ends that request, with a word of its own, and nothing else."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np
import pytest
import torch

from inference.adapters.torch.constraints.compiler import GrammarState
from inference.adapters.torch.event_queue import EventQueue
from inference.adapters.torch.sampling_table import SamplingTable, SeenTokens
from inference.core.port import (
    Constraint,
    ConstraintKind,
    EngineError,
    GenerationFailed,
    NonFiniteLogits,
    UnsupportedConstraint,
)
from tests.unit.inference.cuda.launching_runner import LaunchingFake
from tests.unit.inference.engine.driving import Answer, ask, request, serving
from tests.unit.inference.engine.fake_runner import FakeRunner
from tests.unit.inference.engine.test_engine import until

LETTERS = Constraint(ConstraintKind.REGEX, "[a-z]+")
# Prompts that hold one of these make the runner fail, each in its way.
NAN, ONE_NAN, INFINITE, RAISES = 120, 121, 122, 123
SPOILT = {NAN: torch.nan, INFINITE: torch.inf}


class Spoiling:
    """A runner whose logits and steps fail where a sequence's text begins with such a token."""

    def forward(self: Any, batch: Any) -> torch.Tensor:
        firsts = [self._first(batch, place) for place in range(len(batch.context_lens))]
        if RAISES in firsts:
            raise RuntimeError("a sequence that cannot be run")
        logits = super().forward(batch)  # type: ignore[misc]
        owners = np.searchsorted(batch.query_starts, batch.logits_rows, side="right") - 1
        for row, owner in enumerate(owners):
            if firsts[owner] in SPOILT:
                logits[row] = SPOILT[firsts[owner]]
            elif firsts[owner] == ONE_NAN:
                logits[row, 77] = torch.nan
        return logits

    def copy_blocks(self: Any, pairs: Any) -> None:
        super().copy_blocks(pairs)  # type: ignore[misc]
        for source, destination in pairs:
            self.firsts[destination] = self.firsts.get(source, -1)

    def _first(self: Any, batch: Any, place: int) -> int:
        start, block = batch.query_starts[place], int(batch.block_tables[place, 0])
        if batch.positions[start] == 0:
            self.firsts[block] = int(batch.token_ids[start])
        return self.firsts.get(block, -1)


class Plain(Spoiling, FakeRunner):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.firsts: dict[int, int] = {}


class Launched(Spoiling, LaunchingFake):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.firsts: dict[int, int] = {}


ENGINES = [
    pytest.param(Plain, {}, id="plain"),
    pytest.param(Plain, {"speculation": "prompt_lookup"}, id="drafting"),
    pytest.param(Launched, {}, id="overlapped"),
]


async def beside_honest(engine, runner, *bad, count: int = 6) -> list[Any]:
    """The outcomes of the bad requests, asked among honest ones, whose answers must be their own."""
    honest = [(i + 1, 5, 6, 5, 6) for i in range(count)]
    outcomes = await asyncio.gather(
        *(ask(engine, request(p, 24, ignore_eos=True)) for p in honest),
        *(ask(engine, wanted) for wanted in bad),
        return_exceptions=True,
    )
    for prompt, answer in zip(honest, outcomes, strict=False):
        assert isinstance(answer, Answer), repr(answer)
        assert answer.tokens[0] == runner.expected(prompt, 24, ignore_eos=True)
    await until(lambda: engine._stepper.scheduler.pool.held == 0)
    assert not engine._stepper._generations
    return outcomes[count:]


@pytest.mark.parametrize(("kind", "settings"), ENGINES)
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "seed": 3}, {"logprobs": 3, "frequency_penalty": 1.0}])
async def test_logits_that_are_not_finite_end_that_request(kind, settings, sampling):
    runner = kind()
    async with serving(runner, **settings) as engine:
        bad = [request((token, 2, 3), 8, **sampling) for token in (NAN, ONE_NAN, INFINITE)]
        for outcome in await beside_honest(engine, runner, *bad):
            assert type(outcome) is NonFiniteLogits
            assert outcome.reason == "NON_FINITE_LOGITS"
        await beside_honest(engine, runner)


@pytest.mark.parametrize(("kind", "settings"), ENGINES)
async def test_a_sequence_that_cannot_be_run_ends_alone(kind, settings):
    runner = kind()
    async with serving(runner, **settings) as engine:
        (outcome,) = await beside_honest(engine, runner, request((RAISES, 2, 3), 8, n=2))
        assert type(outcome) is GenerationFailed
        # Also where nobody stands beside it to show that the runner is well.
        with pytest.raises(GenerationFailed):
            await ask(engine, request((RAISES, 4), 8))
        await beside_honest(engine, runner)


@pytest.mark.parametrize(("kind", "settings"), ENGINES)
async def test_a_runner_that_runs_nothing_is_broken(kind, settings):
    runner = kind()
    async with serving(runner, **settings) as engine:
        runner.fail_next = RuntimeError("device lost")
        outcomes = await asyncio.gather(*(ask(engine, request((i,), 8)) for i in range(1, 4)), return_exceptions=True)
        for outcome in outcomes:
            assert type(outcome) is EngineError
            assert "device lost" in str(outcome)


@pytest.mark.parametrize(("kind", "settings"), ENGINES)
async def test_a_grammar_that_allows_nothing_ends_that_request(kind, settings, monkeypatch):
    fill = GrammarState.fill

    def fill_until_b(state, words, row, drafts):
        fill(state, words, row, drafts)
        state.fills = getattr(state, "fills", 0) + 1
        if state.fills > 3:
            words[row] = 0

    monkeypatch.setattr(GrammarState, "fill", fill_until_b)
    runner = kind()
    async with serving(runner, **settings) as engine:
        bad = request((1, 2), 20, constraint=LETTERS, ignore_eos=True)
        (outcome,) = await beside_honest(engine, runner, bad)
        assert type(outcome) is UnsupportedConstraint
        assert "after 3 tokens of choice 0" in str(outcome)


@pytest.mark.parametrize(("kind", "settings"), ENGINES)
@pytest.mark.parametrize("method", ["fill", "accept"])
async def test_a_grammar_that_fails_ends_that_request(kind, settings, method, monkeypatch):
    def fails(*_arguments):
        raise RuntimeError("the matcher's own words")

    runner = kind()
    async with serving(runner, **settings) as engine:
        monkeypatch.setattr(GrammarState, method, fails)
        (outcome,) = await beside_honest(engine, runner, request((1, 2), 20, constraint=LETTERS))
        assert type(outcome) is GenerationFailed
        assert "matcher" not in str(outcome), "a caller's words may stand in a message"
        monkeypatch.undo()
        await beside_honest(engine, runner)
        assert (await ask(engine, request((3,), 20, constraint=LETTERS))).finish[0] is not None


@pytest.mark.parametrize(("kind", "settings"), ENGINES)
async def test_counting_tokens_that_fails_ends_that_request(kind, settings, monkeypatch):
    def fails(*_arguments):
        raise ValueError("no room")

    runner = kind()
    async with serving(runner, **settings) as engine:
        monkeypatch.setattr(SeenTokens, "add", fails)
        (outcome,) = await beside_honest(engine, runner, request((1, 2), 20, frequency_penalty=0.5, ignore_eos=True))
        assert type(outcome) is GenerationFailed


@pytest.mark.parametrize(("kind", "settings"), ENGINES)
async def test_drawing_that_fails_for_one_row_ends_that_request(kind, settings, monkeypatch):
    parts = SamplingTable._parts

    def fails(table, row, request_row):
        if table._bias[request_row][0][0] == 66:
            raise IndexError("out of range")
        return parts(table, row, request_row)

    runner = kind()
    async with serving(runner, **settings) as engine:
        monkeypatch.setattr(SamplingTable, "_parts", fails)
        good = request((1, 2), 6, logit_bias={30: 100.0}, logprobs=2, ignore_eos=True)
        bad = request((1, 2), 6, logit_bias={66: 1.0})
        outcomes = await beside_honest(engine, runner, good, bad)
        assert outcomes[0].tokens == [[30] * 6]
        assert [entry.token for entry in outcomes[0].logprobs[0]] == [30] * 6
        assert type(outcomes[1]) is GenerationFailed


@pytest.mark.parametrize(("kind", "settings"), ENGINES)
async def test_an_event_that_cannot_be_delivered_ends_that_request(kind, settings, monkeypatch):
    put = EventQueue.put

    def fails(queue, index, gained):
        if index == 1:
            raise RuntimeError("no such choice")
        put(queue, index, gained)

    runner = kind()
    async with serving(runner, **settings) as engine:
        monkeypatch.setattr(EventQueue, "put", fails)
        (outcome,) = await beside_honest(engine, runner, request((1, 2), 20, n=2, ignore_eos=True))
        assert type(outcome) is GenerationFailed


async def test_a_request_that_cannot_be_taken_in_ends_alone(monkeypatch):
    enter = SamplingTable.enter

    def fails(table, request_row, params, **more):
        if params.top_k == 7:
            raise OverflowError("too large")
        enter(table, request_row, params, **more)

    runner = Plain()
    async with serving(runner) as engine:
        monkeypatch.setattr(SamplingTable, "enter", fails)
        (outcome,) = await beside_honest(engine, runner, request((1, 2), 20, n=3, top_k=7))
        assert type(outcome) is GenerationFailed


async def test_drafts_that_cannot_be_made_are_done_without():
    class Raising(FakeRunner):
        def forward(self, batch):
            raise RuntimeError("the small model's")

    runner = Plain()
    async with serving(runner, draft=Raising()) as engine:
        await beside_honest(engine, runner)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1e-40},
        {"temperature": 1e-38, "repetition_penalty": 1e-38},
        {"repetition_penalty": 1e-44, "logprobs": 2},
        {"temperature": 2.0, "repetition_penalty": 1e-30, "logit_bias": {5: 100.0}, "top_p": 1e-38},
    ],
)
async def test_the_smallest_numbers_draw_as_the_small_ones(sampling):
    """They make infinities of logits, which no softmax can be taken of."""
    runner = Plain()
    async with serving(runner) as engine:
        (outcome,) = await beside_honest(engine, runner, request((1, 2), 12, seed=1, ignore_eos=True, **sampling))
        assert len(outcome.tokens[0]) == 12
        if set(sampling) == {"temperature"}:
            assert outcome.tokens[0] == runner.expected((1, 2), 12, ignore_eos=True)


async def test_what_a_failed_request_wrote_is_in_no_prompt_cache(monkeypatch):
    runner = Plain()
    prompt = [NAN, *range(40)]
    async with serving(runner) as engine:
        with pytest.raises(NonFiniteLogits):
            await ask(engine, request(prompt, 4))
        monkeypatch.delitem(SPOILT, NAN)
        again = await ask(engine, request(prompt, 4, ignore_eos=True))
    assert again.summary.cached_tokens == 0
    assert again.tokens[0] == runner.expected(prompt, 4, ignore_eos=True)


@pytest.mark.parametrize(("kind", "settings"), ENGINES)
async def test_thousand_requests_with_failures_and_cancels_leave_no_block(kind, settings):
    runner = kind(num_blocks=48)
    rng = random.Random(5)
    failures = 0
    async with serving(runner, max_queued=1000, **settings) as engine:

        async def one(i: int) -> None:
            nonlocal failures
            prompt = [rng.randrange(4) for _ in range(rng.randrange(1, 40))]
            if rng.random() < 0.2:
                prompt[0] = rng.choice((NAN, ONE_NAN, INFINITE, RAISES))
            more = rng.choice(({}, {}, {"constraint": LETTERS}, {"temperature": 1.0}, {"presence_penalty": 1.0}))
            wanted = request(prompt, rng.randrange(1, 12), n=rng.choice((1, 1, 2)), tenant=f"t{i % 3}", **more)
            answer, stop_after = Answer(wanted.n), rng.choice((0, 1, 2, 99, 99))
            events = engine.generate(wanted)
            try:
                async for event in events:
                    answer.take(event)
                    stop_after -= 1
                    if stop_after < 0:
                        await events.aclose()
                        return
            except GenerationFailed:
                assert prompt[0] >= NAN
                failures += 1
                return
            assert prompt[0] < NAN
            if not more:
                assert answer.tokens == [runner.expected(prompt, wanted.sampling.max_tokens)] * wanted.n

        for batch in range(5):
            await asyncio.gather(*(one(batch * 200 + i) for i in range(200)))
        await until(lambda: engine.load().kv_used == 0)
        assert failures > 50
        assert (engine.load().running, engine.load().queued, engine._admission.inside) == (0, 0, 0)
        assert len(engine._stepper._free_tickets) == 1008
