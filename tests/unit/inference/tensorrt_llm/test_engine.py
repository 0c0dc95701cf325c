"""The engine over a scripted TensorRT-LLM: endings, cancelling, tenants, failures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from types import SimpleNamespace

import pytest

from inference import engines
from inference.adapters.tensorrt_llm.engine import build
from inference.adapters.tensorrt_llm.settings import TensorRtLlmSettings
from inference.core.port import (
    AdapterNotFound,
    Constraint,
    ConstraintKind,
    ContextTooLong,
    EngineDelta,
    EngineError,
    EngineOverloaded,
    EngineSummary,
    Finish,
    UnsupportedConstraint,
)
from tests.fakes.tensorrt_llm import LLM, Script, Step, modules
from tests.unit.inference.engine.driving import ask, request

EOS = 2


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 32, "max_position_embeddings": 40}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [EOS, 5]}))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


@contextlib.asynccontextmanager
async def serving(folder, monkeypatch, answer, **changes):
    for name, module in modules(answer).items():
        monkeypatch.setitem(sys.modules, name, module)
    engine = build(TensorRtLlmSettings(model_path=folder, **changes)).engine
    await engine.start()
    try:
        yield engine, LLM.made[-1]
    finally:
        await engine.close()


def always(*steps, hold=None):
    return lambda _request: Script(list(steps), hold)


async def test_it_is_one_word_away_and_imports_nothing_before():
    assert "tensorrt_llm" in engines.names()
    assert engines.spec("tensorrt_llm").settings is TensorRtLlmSettings
    assert "tensorrt_llm" not in sys.modules


async def test_answer_comes_as_it_is_made_without_its_end_of_text(folder, monkeypatch):
    script = always(Step((7,)), Step((8, 9)), Step((EOS,), finish="stop"))
    async with serving(folder, monkeypatch, script) as (engine, llm):
        events = [event async for event in engine.generate(request((1, 2), 6))]
        assert [e.tokens for e in events if isinstance(e, EngineDelta)] == [(7,), (8, 9), ()]
        assert events[-2].finish is Finish.STOP
        assert events[-1] == EngineSummary(2, 3, prefill_s=events[-1].prefill_s, decode_s=events[-1].decode_s)
        assert llm.requests[0]["inputs"] == [1, 2]
        assert llm.requests[0]["streaming"] is True
        assert not llm.results[0].was_aborted
        assert engine.load().running == 0
        assert engine.info.context_length == 40
    assert llm.is_shut_down


async def test_end_of_text_in_the_middle_is_kept_where_it_is_ignored(folder, monkeypatch):
    script = always(Step((7, EOS)), Step((8,), finish="length"))
    async with serving(folder, monkeypatch, script) as (engine, _):
        answer = await ask(engine, request((1,), 3, ignore_eos=True))
        assert (answer.tokens[0], answer.finish[0]) == ([7, EOS, 8], Finish.LENGTH)


async def test_logprobs_are_sorted_and_cut(folder, monkeypatch):
    entry = {9: SimpleNamespace(logprob=-2.0), 7: SimpleNamespace(logprob=-0.5), 4: SimpleNamespace(logprob=-1.0)}
    script = always(Step((9,), (entry,)), Step((7,), (-0.25,), finish="length"))
    async with serving(folder, monkeypatch, script) as (engine, _):
        answer = await ask(engine, request((1,), 2, logprobs=2))
        first, second = answer.logprobs[0]
        assert (first.token, first.logprob, first.top) == (9, -2.0, ((7, -0.5), (4, -1.0)))
        assert (second.token, second.logprob, second.top) == (7, -0.25, ())


async def test_choices_are_requests_of_their_own_and_continue_each_their_own(folder, monkeypatch):
    def answer(asked):
        return Script([Step((asked["inputs"][-1] + 10,), finish="length")])

    async with serving(folder, monkeypatch, answer) as (engine, llm):
        got = await ask(engine, request((1,), 3, n=3, emitted=[(4,), (5, 6), (7, 7, 7)], temperature=1.0, seed=9))
        assert got.tokens == [[14], [16], []]
        assert got.finish == [Finish.LENGTH] * 3
        assert [r["sampling_params"].given["max_tokens"] for r in llm.requests] == [2, 1]
        assert [r["sampling_params"].given["seed"] for r in llm.requests] == [9, 10]
        await ask(engine, request((1,), 3))
        await ask(engine, request((1,), 3))
        assert llm.requests[-1]["sampling_params"].given["seed"] != llm.requests[-2]["sampling_params"].given["seed"]


async def test_tenants_do_not_share_cached_prompts(folder, monkeypatch):
    async with serving(folder, monkeypatch, always(Step((7,), finish="length"))) as (engine, llm):
        for tenant in ("a", "b", "a"):
            await ask(engine, request((1,), 1, tenant=tenant))
        salts = [r["cache_salt"] for r in llm.requests]
        assert salts[0] == salts[2] != salts[1]
        assert not {"a", "b"} & set(salts)


async def test_closing_the_iterator_aborts_every_choice(folder, monkeypatch):
    script = always(Step((7,)), hold=asyncio.Event())
    async with serving(folder, monkeypatch, script) as (engine, llm):
        events = engine.generate(request((1,), 9, n=2))
        await anext(events)
        assert engine.load().running == 2
        await events.aclose()
        assert [result.was_aborted for result in llm.results] == [True, True]
        assert engine.load().running == 0


async def test_close_ends_what_runs(folder, monkeypatch):
    script = always(Step((7,)), hold=asyncio.Event())
    async with serving(folder, monkeypatch, script) as (engine, llm):
        events = engine.generate(request((1,), 9))
        await anext(events)
        await engine.close()
        with pytest.raises(EngineError, match="closed"):
            await anext(events)
        assert llm.results[0].was_aborted
        with pytest.raises(EngineError, match="not running"):
            await anext(engine.generate(request((1,), 9)))


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([Step((7,)), RuntimeError("the prompt was: secret")], "failed: RuntimeError$"),
        ([Step((7,)), Step(finish="timeout")], "'timeout'"),
        ([Step((7,)), Step(finish="cancelled")], "'cancelled'"),
        ([Step((7,))], "without a reason"),
    ],
)
async def test_no_stream_ends_silently_and_no_error_quotes_a_prompt(folder, monkeypatch, steps, words):
    async with serving(folder, monkeypatch, always(*steps)) as (engine, _):
        with pytest.raises(EngineError, match=words):
            await ask(engine, request((1,), 9))
        assert engine.load().running == 0


async def test_refusals_come_before_anything_runs(folder, monkeypatch):
    constraint = Constraint(ConstraintKind.REGEX, "a+")
    refused = [
        (ContextTooLong, request(range(40), 1)),
        (AdapterNotFound, request((1,), 1, adapter="x")),
        (UnsupportedConstraint, request((1,), 4, emitted=[(3,)], constraint=constraint)),
        (ValueError, request((), 1)),
        (ValueError, request((1,), 4, n=2, emitted=[(3,)])),
    ]
    async with serving(folder, monkeypatch, always()) as (engine, llm):
        for kind, wanted in refused:
            with pytest.raises(kind):
                await anext(engine.generate(wanted))
        assert not llm.requests


async def test_a_full_house_says_when_to_come_back(folder, monkeypatch):
    script = always(Step((7,)), hold=asyncio.Event())
    async with serving(folder, monkeypatch, script, max_running=1, max_queued=1) as (engine, _):
        running = [engine.generate(request((1,), 9)) for _ in range(2)]
        for events in running:
            await anext(events)
        assert (engine.load().running, engine.load().queued) == (1, 1)
        with pytest.raises(EngineOverloaded) as refusal:
            await anext(engine.generate(request((1,), 9)))
        assert refusal.value.retry_after_s > 0
        for events in running:
            await events.aclose()


async def test_a_model_that_does_not_load_is_named(folder, monkeypatch):
    for name, module in modules(always()).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(LLM, "__init__", lambda self, **_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    engine = build(TensorRtLlmSettings(model_path=folder)).engine
    with pytest.raises(EngineError, match=f"cannot load {folder.name}: out of memory"):
        await engine.start()


def test_folders_and_settings_that_cannot_be_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match="model_path: 'gone' is not a folder"):
        build(TensorRtLlmSettings(model_path=tmp_path / "gone"))
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config.json: KeyError\('vocab_size'\)"):
        build(TensorRtLlmSettings(model_path=folder))
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        build(TensorRtLlmSettings(model_path=folder))
    for wrong, words in (
        ({"speculation": "draft"}, "draft_path"),
        ({"max_running": 0}, "max_running"),
        ({"step_tokens": 1}, "step_tokens"),
        ({"kv_share": 0.0}, "kv_share"),
    ):
        with pytest.raises(ValueError, match=words):
            TensorRtLlmSettings(model_path=folder, **wrong)
