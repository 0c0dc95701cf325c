"""Drafts change how fast an answer comes, never the answer."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from inference.core.port import Constraint, ConstraintKind
from tests.unit.inference.engine.driving import ask, request, serving, text
from tests.unit.inference.engine.fake_runner import FakeRunner

pytestmark = pytest.mark.usefixtures("always")
PROMPTS = [[i % 5, 1, 2, 1, 2, 1] for i in range(12)]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draft whether it pays or not, which only the machine's clock could say."""
    monkeypatch.setattr("inference.core.speculation.PayOff.TRIAL", 10**9)


class Repeating(FakeRunner):
    """A model that mostly goes round in circles, so that its text can be looked up."""

    def logits(self, keys):
        return self.table[keys * 0 + 3] + 0.3 * self.table[(keys >> 9) & 7]


async def answers(runner, *, draft=None, sampling, **config):
    async with serving(runner, draft=draft, **config) as engine:
        got = await asyncio.gather(*(ask(engine, request(p, 40, ignore_eos=True, **sampling)) for p in PROMPTS))
        assert engine.load().kv_used == 0
    return (
        [a.tokens[0] for a in got],
        sum(a.summary.drafted_tokens for a in got),
        sum(a.summary.accepted_tokens for a in got),
    )


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0.0}, {"temperature": 1.0, "seed": 3}, {"temperature": 0.7, "top_p": 0.9, "seed": 8}]
)
async def test_prompt_lookup_gives_the_same_text(sampling):
    plain, none, _ = await answers(Repeating(sharpness=3.0), sampling=sampling)
    drafted, guesses, held = await answers(Repeating(sharpness=3.0), sampling=sampling, speculation="prompt_lookup")
    assert drafted == plain
    assert none == 0
    assert guesses >= held > 0


@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"temperature": 1.0, "seed": 3}])
async def test_draft_model_gives_the_same_text(sampling):
    plain, _, _ = await answers(FakeRunner(sharpness=2.0), sampling=sampling)
    draft = FakeRunner(sharpness=2.0, noise=0.1)
    drafted, guesses, held = await answers(FakeRunner(sharpness=2.0), draft=draft, sampling=sampling)
    assert drafted == plain
    assert guesses > held > guesses / 4
    assert draft.closed


@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"temperature": 1.0, "seed": 3}])
async def test_drafts_that_come_and_go_give_the_same_text(sampling, monkeypatch):
    chance = random.Random(5)
    monkeypatch.setattr("inference.core.speculation.PayOff.drafts", lambda *_: chance.random() < 0.5)
    plain, _, _ = await answers(FakeRunner(sharpness=2.0), sampling=sampling)
    draft = FakeRunner(sharpness=2.0, noise=0.1)
    drafted, guesses, held = await answers(FakeRunner(sharpness=2.0), draft=draft, sampling=sampling)
    assert drafted == plain
    assert guesses > held > 0


async def test_perfect_draft_is_accepted_whole_and_takes_fewer_steps():
    runner, draft = FakeRunner(), FakeRunner()
    async with serving(runner, draft=draft, max_running=1) as engine:
        answer = await ask(engine, request(range(6), 60, ignore_eos=True))
    assert answer.tokens[0] == runner.expected(range(6), 60, ignore_eos=True)
    assert answer.summary.accepted_tokens == answer.summary.drafted_tokens > 0
    assert len(runner.steps) < 55


async def test_drafts_follow_preemption_and_forks():
    runner = FakeRunner(num_blocks=14)
    async with serving(runner, draft=FakeRunner(num_blocks=14, noise=0.1)) as engine:
        got = await asyncio.gather(*(ask(engine, request([i, 7, 8], 50, n=2, ignore_eos=True)) for i in range(6)))
        assert engine._stepper.scheduler.preemptions > 0
    for i, answer in enumerate(got):
        assert answer.tokens == [runner.expected([i, 7, 8], 50, ignore_eos=True)] * 2


async def test_penalties_are_not_drafted():
    runner = FakeRunner(sharpness=2.0)
    wanted = {"frequency_penalty": 1.0, "ignore_eos": True}
    async with serving(runner) as engine:
        plain = await text(engine, [1, 2], 30, **wanted)
    async with serving(runner, draft=FakeRunner(sharpness=2.0)) as engine:
        answer = await ask(engine, request([1, 2], 30, **wanted))
    assert answer.tokens[0] == plain
    assert answer.summary.drafted_tokens == 0


async def test_grammar_holds_with_drafts():
    numbers = {"type": "array", "items": {"type": "integer"}, "maxItems": 4}
    schema = {"type": "object", "properties": {"n": numbers}, "required": ["n"]}
    wanted = {"constraint": Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(schema)), "temperature": 1.0, "seed": 1}
    async with serving(FakeRunner(sharpness=2.0)) as engine:
        plain = await text(engine, [1, 2], 60, **wanted)
    async with serving(FakeRunner(sharpness=2.0), draft=FakeRunner(sharpness=2.0)) as engine:
        answer = await ask(engine, request([1, 2], 60, **wanted))
    assert answer.tokens[0] == plain
    assert answer.summary.drafted_tokens > 0
