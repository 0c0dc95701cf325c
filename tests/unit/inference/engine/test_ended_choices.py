"""A choice of which nothing more is wanted is drawn no further, and its neighbours are none the wiser."""

from __future__ import annotations

import asyncio

import pytest

from inference.core.generation_state import Stage
from inference.core.port import EngineDelta, Finish
from tests.unit.inference.cuda.launching_runner import LaunchingFake
from tests.unit.inference.engine.driving import Answer, ask, request, serving
from tests.unit.inference.engine.fake_runner import FakeRunner
from tests.unit.inference.engine.test_engine import held, until

KINDS = [FakeRunner, LaunchingFake]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unwanted", [[0], [2], [0, 1], [0, 1, 2]])
async def test_unwanted_choices_free_what_they_hold(kind, unwanted):
    runner = kind()
    runner.hold_after = 6
    wanted = request(range(20), 200, n=3, ignore_eos=True)
    async with serving(runner) as engine:
        answer = Answer(3)
        events = engine.generate(wanted)
        while not all(answer.tokens):
            answer.take(await anext(events))
        for index in unwanted * 2:
            wanted.state.end_choice(index)
        runner.go.set()
        async for event in events:
            answer.take(event)
        expected = runner.expected(range(20), 200, ignore_eos=True)
        for index in range(3):
            got = answer.tokens[index]
            assert got == expected[: len(got)]
            assert (len(got) == 200) == (index not in unwanted)
            assert (answer.finish[index] is Finish.LENGTH) == (index not in unwanted)
        assert answer.summary is not None
        # A step or two may have been under way.
        assert answer.summary.completion_tokens <= 200 * (3 - len(unwanted)) + 10 * len(unwanted)
        await until(lambda: engine.load().kv_used == 0)
        assert not engine._stepper._generations


@pytest.mark.parametrize("kind", KINDS)
async def test_a_choice_may_be_unwanted_before_anything_was_drawn(kind):
    """The others still fork off it."""
    runner = kind()
    for unwanted in ([0], [1], [0, 1]):
        wanted = request(range(20), 12, n=3, ignore_eos=True)
        for index in unwanted:
            wanted.state.end_choice(index)
        async with serving(runner, max_running=2) as engine:
            answer = await ask(engine, wanted)
            assert answer.tokens[2] == runner.expected(range(20), 12, ignore_eos=True)
            assert answer.summary.completion_tokens == 12 * (3 - len(unwanted)) + len(unwanted)
            await until(lambda: engine.load().kv_used == 0)
    runner.close()


async def test_unwanted_choices_end_whether_they_run_or_wait_again():
    """Memory is for two of twelve, so that most that have tokens have been preempted."""
    runner = FakeRunner(num_blocks=6)
    requests = [request((i, 7), 60, ignore_eos=True, request_id=str(i)) for i in range(12)]
    async with serving(runner) as engine:

        async def one(number: int) -> None:
            answer = Answer()
            async for event in engine.generate(requests[number]):
                answer.take(event)
                if isinstance(event, EngineDelta) and number % 2 and len(answer.tokens[0]) > 10:
                    requests[number].state.end_choice(0)
            expected = runner.expected((number, 7), 60, ignore_eos=True)
            assert answer.tokens[0] == expected[: len(answer.tokens[0])]
            assert number % 2 or len(answer.tokens[0]) == 60

        await asyncio.gather(*(one(number) for number in range(12)))
        assert engine._stepper.scheduler.preemptions > 0
        await until(lambda: engine.load().kv_used == 0)


async def test_how_far_a_generation_is():
    runner = held(after=2)
    first, second = request(range(100), 4), request(range(30), 4, tenant="other")
    async with serving(runner, max_running=1, step_tokens=33) as engine:
        reading = asyncio.create_task(ask(engine, first))
        await until(lambda: len(runner.steps) == 2)
        waiting = asyncio.create_task(ask(engine, second))
        await until(lambda: engine.load().queued == 1)
        progress = first.state.progress()
        assert progress.stage is Stage.PREFILL
        assert progress.read == pytest.approx(0.33) or progress.read == pytest.approx(0.66)
        assert second.state.progress().stage is Stage.QUEUED
        # The engine stands still: waiting for it is not waiting.
        assert first.state.progress() is None
        assert second.state.progress() is None
        runner.go.set()
        assert (await reading).tokens[0] == runner.expected(range(100), 4)
        assert (await waiting).tokens[0] == runner.expected(range(30), 4)
