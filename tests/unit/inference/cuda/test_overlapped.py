"""Steps launched before the last one is read: the answers are those of steps that run one after the other."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# A device's machine may have torch and little else.
pytest.importorskip("structlog")
pytest.importorskip("xgrammar")
pytest.importorskip("pytest_asyncio")

from inference.adapters.torch.cuda.overlapped import OverlappedStepper
from inference.core.port import Finish
from tests.unit.inference.cuda.launching_runner import LaunchingFake
from tests.unit.inference.engine.driving import ask, request, serving, text
from tests.unit.inference.engine.fake_runner import FakeRunner


async def test_a_launching_runner_gets_overlapped_steps():
    """And every step of plain requests is one."""
    runner = LaunchingFake()
    async with serving(runner) as engine:
        assert isinstance(engine._stepper, OverlappedStepper)
        answer = await ask(engine, request((1, 2, 3), 6, ignore_eos=True))
        assert answer.tokens[0] == runner.expected((1, 2, 3), 6, ignore_eos=True)
        assert answer.finish == [Finish.LENGTH]
        assert answer.summary.completion_tokens == 6
        assert runner.launches == len(runner.steps) == 6, "a length limit is known ahead: no step is wasted on it"


async def test_end_of_text_is_seen_one_step_late_and_nothing_of_it_shows():
    runner = LaunchingFake(sharpness=3.0)
    async with serving(runner) as engine:
        prompts = [(7, i) for i in range(40)]
        answers = await asyncio.gather(*(ask(engine, request(p, 30)) for p in prompts))
        stopped = 0
        for prompt, answer in zip(prompts, answers, strict=True):
            assert answer.tokens[0] == runner.expected(prompt, 30)
            stopped += answer.finish[0] is Finish.STOP
        assert stopped > 5
        assert engine._stepper.scheduler.pool.held == 0


async def test_sampled_answers_are_those_of_separate_steps():
    """Same seed, same text, on either kind of runner, with every filter."""
    kinds = [{}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1, "top_k": 40}]
    requests = [request((3, i), 12, temperature=0.9, seed=i, ignore_eos=True, **kinds[i % 4]) for i in range(12)]
    async with serving(FakeRunner()) as plain:
        expected = await asyncio.gather(*(ask(plain, each) for each in requests))
    async with serving(LaunchingFake()) as overlapped:
        actual = await asyncio.gather(*(ask(overlapped, each) for each in requests))
    assert [a.tokens for a in actual] == [e.tokens for e in expected]
    for a, e in zip(actual, expected, strict=True):
        assert abs(a.confidence[0].mean_logprob - e.confidence[0].mean_logprob) < 1e-5


async def test_requests_that_must_wait_turn_overlap_off_and_on_again():
    """A penalty depends on every token before; beside it all steps wait, and after it they overlap again."""
    runner = LaunchingFake()
    penalized = request((5, 5), 5, frequency_penalty=1.5, ignore_eos=True)
    async with serving(FakeRunner()) as plain:
        expected = (await ask(plain, penalized)).tokens[0]
    async with serving(runner) as engine:
        running = asyncio.create_task(text(engine, (1, 2), 40, ignore_eos=True))
        await _until(lambda: runner.launches > 3)
        assert (await ask(engine, penalized)).tokens[0] == expected
        launches, steps = runner.launches, len(runner.steps)
        assert launches < steps
        assert await running == runner.expected((1, 2), 40, ignore_eos=True)
        await text(engine, (9,), 4, ignore_eos=True)
        assert runner.launches > launches


async def test_choices_fork_and_resume():
    runner = LaunchingFake()
    async with serving(runner) as engine:
        whole = runner.expected(range(20), 10, ignore_eos=True)
        answer = await ask(engine, request(range(20), 10, n=3, ignore_eos=True))
        assert answer.tokens == [whole] * 3
        resumed = await ask(engine, request(range(20), 10, emitted=[whole[:4]], ignore_eos=True))
        assert resumed.tokens[0] == whole[4:]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), blocks=st.integers(6, 24))
def test_nothing_leaks_and_nobody_reads_anothers(seed: int, blocks: int) -> None:
    """Random arrivals and cancels in so little memory that sequences are preempted with a token unread."""
    asyncio.run(_random_house(seed, blocks))


async def _random_house(seed: int, blocks: int) -> None:
    rng = random.Random(seed)
    runner = LaunchingFake(num_blocks=blocks, sharpness=3.0)

    async def one(number: int) -> None:
        # Some prompts begin alike, so that they meet in the prompt cache.
        prompt = [1] * rng.randrange(20) + [number % 7 + 2] * rng.randrange(1, 20)
        ignore_eos = rng.random() < 0.5
        wanted = request(prompt, rng.randrange(1, 40), ignore_eos=ignore_eos, request_id=str(number))
        cut = rng.randrange(12) if rng.random() < 0.3 else None
        events = engine.generate(wanted)
        got: list[int] = []
        async for event in events:
            got += getattr(event, "tokens", ())
            if cut is not None and len(got) >= cut:
                await events.aclose()
                break
        expected = runner.expected(prompt, wanted.sampling.max_tokens, ignore_eos=ignore_eos)
        assert got == (expected if cut is None else expected[: len(got)])

    async with serving(runner, max_running=6, step_tokens=24) as engine:
        await asyncio.gather(*(one(i) for i in range(30)))
        await _until(lambda: not engine._stepper.busy)
        assert engine._stepper.scheduler.pool.held == 0
        assert not engine._stepper._generations
        assert len(engine._stepper._free_tickets) == len(engine._stepper._source)


async def _until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)
