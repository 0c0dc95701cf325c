from __future__ import annotations

import asyncio
import random

import pytest

from inference.core.port import (
    AdapterNotFound,
    ContextTooLong,
    EngineDelta,
    EngineError,
    EngineOverloaded,
    EngineSummary,
    Finish,
)
from tests.unit.inference.engine.driving import Answer, ask, request, serving, text
from tests.unit.inference.engine.fake_runner import EOS, FakeRunner


async def until(condition) -> None:
    """Wait for a condition of another thread."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def test_answer_is_the_models_own():
    runner = FakeRunner()
    async with serving(runner) as engine:
        answer = await ask(engine, request(range(20), 12))
    assert answer.tokens[0] == runner.expected(range(20), 12)
    assert answer.finish == [Finish.LENGTH]
    assert (answer.summary.prompt_tokens, answer.summary.completion_tokens) == (20, 12)
    assert runner.closed


async def test_revision_tells_what_keys_and_values_are_held_in():
    async with serving(FakeRunner()) as engine:
        plain = engine.info.revision
    async with serving(FakeRunner(), kv_precision="int8") as engine:
        assert engine.info.revision == f"{plain}-kv-int8"


async def test_end_of_text_stops_and_is_not_given_out():
    runner = FakeRunner()
    prompt = next(
        p for p in ([i, j] for i in range(60) for j in range(60)) if len(runner.expected(p, 20)) in range(1, 20)
    )
    async with serving(runner) as engine:
        answer = await ask(engine, request(prompt, 20))
        assert answer.tokens[0] == runner.expected(prompt, 20)
        assert answer.finish == [Finish.STOP]
        on = await ask(engine, request(prompt, 20, ignore_eos=True))
        assert on.tokens[0] == runner.expected(prompt, 20, ignore_eos=True)
        assert EOS in on.tokens[0]


async def test_many_at_once_get_what_each_would_alone():
    runner = FakeRunner(num_blocks=14)
    rng = random.Random(3)
    prompts = [[rng.randrange(120) for _ in range(rng.randrange(1, 60))] for _ in range(40)]
    async with serving(runner) as engine:
        answers = await asyncio.gather(*(text(engine, p, 20) for p in prompts))
        load = engine.load()
        assert engine._stepper.scheduler.preemptions > 0
    assert answers == [runner.expected(p, 20) for p in prompts]
    assert (load.kv_used, load.running, load.queued) == (0, 0, 0)


async def test_choices_fork_and_agree_when_greedy():
    runner = FakeRunner()
    async with serving(runner) as engine:
        answer = await ask(engine, request(range(21), 6, n=3))
    assert answer.tokens == [runner.expected(range(21), 6)] * 3
    assert answer.summary.completion_tokens == sum(map(len, answer.tokens))
    assert sum(len(step.token_ids) for step in runner.steps) < 21 + 3 * 7


async def test_more_choices_than_slots_all_come():
    runner = FakeRunner()
    async with serving(runner, max_running=2) as engine:
        answer = await ask(engine, request(range(5), 6, n=5))
    assert answer.tokens == [runner.expected(range(5), 6)] * 5


async def test_choices_differ_when_sampled_and_repeat_with_their_seed():
    runner = FakeRunner(sharpness=0.3)
    async with serving(runner) as engine:
        first = await ask(engine, request(range(9), 12, n=3, temperature=1.0, seed=5))
        noise = [ask(engine, request([i], 12, temperature=1.0)) for i in range(6)]
        again, *_ = await asyncio.gather(ask(engine, request(range(9), 12, n=3, temperature=1.0, seed=5)), *noise)
        other = await ask(engine, request(range(9), 12, n=3, temperature=1.0, seed=6))
    assert first.tokens == again.tokens
    assert len({tuple(tokens) for tokens in first.tokens + other.tokens}) == 6


def held(after: int = 1) -> FakeRunner:
    """A runner that runs so many steps, and no other before `go`: the engine's thread cannot be done too soon."""
    runner = FakeRunner()
    runner.hold_after = after
    return runner


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.0},
        {"temperature": 1.0, "seed": 11},
        {"temperature": 0.8, "seed": 2, "frequency_penalty": 0.7, "repetition_penalty": 1.2},
    ],
)
async def test_resumed_answer_goes_on_as_if_never_cut(sampling):
    runner = FakeRunner(sharpness=1.0)
    async with serving(runner) as engine:
        whole = await text(engine, range(7), 20, ignore_eos=True, **sampling)
        for cut in (1, 7, 19):
            rest = await ask(engine, request(range(7), 20, emitted=[whole[:cut]], ignore_eos=True, **sampling))
            assert rest.tokens[0] == whole[cut:]
            assert rest.summary.completion_tokens == 20 - cut
        done = await ask(engine, request(range(7), 20, emitted=[whole], ignore_eos=True, **sampling))
    assert done.tokens == [[]]
    assert done.finish == [Finish.LENGTH]


async def test_choices_resume_each_where_it_was():
    runner = FakeRunner(sharpness=1.0)
    draws = {"temperature": 1.0, "seed": 4, "ignore_eos": True}
    async with serving(runner) as engine:
        whole = await ask(engine, request(range(18), 10, n=3, **draws))
        cuts = [whole.tokens[0][:2], whole.tokens[1], whole.tokens[2][:5]]
        rest = await ask(engine, request(range(18), 10, n=3, emitted=cuts, **draws))
    assert rest.tokens == [whole.tokens[0][2:], [], whole.tokens[2][5:]]


async def test_prompt_cache_serves_its_own_tenant_only():
    runner = FakeRunner()
    async with serving(runner) as engine:
        await text(engine, range(40), 4)
        mine = await ask(engine, request(range(40), 4))
        theirs = await ask(engine, request(range(40), 4, tenant="other"))
    assert mine.summary.cached_tokens == 32
    assert theirs.summary.cached_tokens == 0
    assert mine.tokens == theirs.tokens


async def test_closing_the_iterator_frees_within_a_step():
    runner = held()
    async with serving(runner) as engine:
        events = engine.generate(request(range(10), 200, ignore_eos=True))
        await anext(events)
        await events.aclose()
        runner.go.set()
        await until(lambda: engine.load().kv_used == 0)
        # The first, and the one that had begun.
        assert len(runner.steps) <= 2
        assert engine.load().running == 0


async def test_cancelled_reader_frees_too():
    runner = held()
    async with serving(runner) as engine:
        task = asyncio.create_task(ask(engine, request(range(10), 200, ignore_eos=True)))
        await until(lambda: engine.load().kv_used > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        runner.go.set()
        await until(lambda: engine.load().kv_used == 0)


async def test_thousand_requests_with_cancels_leave_no_block():
    runner = FakeRunner(num_blocks=48)
    rng = random.Random(1)
    async with serving(runner, max_queued=1000) as engine:

        async def one(i: int) -> None:
            prompt = [rng.randrange(4) for _ in range(rng.randrange(1, 40))]
            wanted = request(
                prompt, rng.randrange(1, 12), n=rng.choice((1, 1, 1, 2)), tenant=f"t{i % 3}", priority=i % 2
            )
            answer, stop_after = Answer(wanted.n), rng.choice((0, 1, 2, 99, 99))
            events = engine.generate(wanted)
            async for event in events:
                answer.take(event)
                stop_after -= 1
                if stop_after < 0:
                    await events.aclose()
                    return
            assert answer.tokens == [runner.expected(prompt, wanted.sampling.max_tokens)] * wanted.n

        for batch in range(5):
            await asyncio.gather(*(one(batch * 200 + i) for i in range(200)))
        await until(lambda: engine.load().kv_used == 0)
        load = engine.load()
        assert (load.running, load.queued) == (0, 0)
        assert engine._admission.inside == 0
        assert len(engine._stepper._free_tickets) == 1008


async def test_slow_reader_finds_tokens_merged_and_stalls_nobody():
    runner = held()
    async with serving(runner) as engine:
        slow = engine.generate(request(range(4), 200, ignore_eos=True))
        answer = Answer()
        answer.take(await anext(slow))
        runner.go.set()
        assert await text(engine, range(5), 30, ignore_eos=True) == runner.expected(range(5), 30, ignore_eos=True)
        await until(lambda: engine.load().running == 0)
        # What the engine's thread sends comes in order: once this one is through, all of the slow reader's has come.
        await text(engine, range(6), 1)
        rest = [event async for event in slow]
    for event in rest:
        answer.take(event)
    assert answer.tokens[0] == runner.expected(range(4), 200, ignore_eos=True)
    assert [type(event) for event in rest] == [EngineDelta, EngineSummary]


async def test_full_house_says_when_to_come_back():
    runner = held()
    async with serving(runner, max_running=1, max_queued=1) as engine:
        running = [asyncio.create_task(text(engine, [i], 200, ignore_eos=True)) for i in range(2)]
        await until(lambda: engine._admission.inside == 2)
        with pytest.raises(EngineOverloaded) as refused:
            await text(engine, [9])
        assert refused.value.retry_after_s > 0
        for task in running:
            task.cancel()
        runner.go.set()
        await asyncio.gather(*running, return_exceptions=True)
        assert await text(engine, [9], 3) == runner.expected([9], 3)


async def test_request_without_room_is_refused():
    async with serving(FakeRunner(context_length=32)) as engine:
        with pytest.raises(ContextTooLong, match="32 tokens leave no room"):
            await text(engine, range(32))
        assert len(await text(engine, range(20), 100, ignore_eos=True)) == 12
        assert engine._admission.inside == 0


async def test_failed_step_ends_everyone_with_an_error():
    runner = held()
    async with serving(runner) as engine:
        events = engine.generate(request(range(4), 100, ignore_eos=True))
        await anext(events)
        runner.fail_next = RuntimeError("device lost")
        runner.go.set()
        with pytest.raises(EngineError, match="device lost"):
            async for _ in events:
                pass
        with pytest.raises(EngineError, match="has stopped"):
            await text(engine, [1])


async def test_close_ends_what_runs_and_may_be_called_twice():
    runner = held()
    async with serving(runner) as engine:
        events = engine.generate(request(range(4), 200, ignore_eos=True))
        await anext(events)
        closing = asyncio.create_task(engine.close())
        await until(lambda: engine._worker._closing)
        runner.go.set()
        with pytest.raises(EngineError, match="was closed"):
            async for _ in events:
                pass
        await closing
        await engine.close()


async def test_adapters_load_serve_and_leave_when_idle(tmp_path):
    runner = FakeRunner()
    (tmp_path / "tone").mkdir()
    (tmp_path / "tone" / "adapter_config.json").write_text("{}")
    (tmp_path / "late").mkdir()
    async with serving(runner, adapter_folder=tmp_path) as engine:
        assert engine.info.adapters == ("tone",)
        with pytest.raises(AdapterNotFound):
            await text(engine, [1], adapter="late")
        await engine.load_adapter("late", "late")
        await engine.load_adapter("late", "late")
        with pytest.raises(ValueError, match="below the adapter folder"):
            await engine.load_adapter("x", "../x")
        plain, tone, late = await asyncio.gather(
            text(engine, range(20), 6),
            text(engine, range(20), 6, adapter="tone"),
            text(engine, range(20), 6, adapter="late"),
        )
        assert plain == runner.expected(range(20), 6)
        assert tone == runner.expected(range(20), 6, adapter=1)
        assert late == runner.expected(range(20), 6, adapter=2)
        events = engine.generate(request([1], 200, adapter="late", ignore_eos=True))
        await anext(events)
        leaving = asyncio.create_task(engine.unload_adapter("late"))
        await until(lambda: engine.info.adapters == ("tone",))
        with pytest.raises(AdapterNotFound):
            await text(engine, [1], adapter="late")
        assert not leaving.done()
        await events.aclose()
        await leaving
        assert list(runner.adapters) == [1]
        with pytest.raises(AdapterNotFound):
            await engine.unload_adapter("late")


async def test_logprobs_and_confidence_are_the_models():
    runner = FakeRunner(sharpness=1.0)
    async with serving(runner) as engine:
        answer = await ask(engine, request(range(6), 5, logprobs=3, ignore_eos=True))
        plain = await ask(engine, request(range(6), 5, ignore_eos=True))
    drawn = answer.logprobs[0]
    assert [entry.token for entry in drawn] == answer.tokens[0]
    for entry in drawn:
        assert len(entry.top) == 3
        assert entry.top[0] == (entry.token, pytest.approx(entry.logprob))
        assert entry.top[0][1] >= entry.top[1][1] >= entry.top[2][1]
    confidence = answer.confidence[0]
    assert confidence.mean_logprob == pytest.approx(sum(e.logprob for e in drawn) / 5, rel=1e-5)
    assert confidence.min_logprob == pytest.approx(min(e.logprob for e in drawn), rel=1e-5)
    assert confidence.mean_margin == pytest.approx(sum(e.top[0][1] - e.top[1][1] for e in drawn) / 5, rel=1e-4)
    assert confidence.mean_entropy > 0
    assert confidence.tokens == 5
    assert plain.logprobs == [[]]
    assert plain.confidence == answer.confidence
