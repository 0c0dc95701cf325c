"""Grammars whose slow place no probe has found: the answer that comes to it ends, and those beside it go on."""

from __future__ import annotations

import asyncio

import pytest
import torch

from inference.adapters.torch.constraints import compiler
from inference.adapters.torch.constraints.compiler import GRACE_S, MASK_S, Compiler, GrammarState
from inference.core.port import Constraint, ConstraintKind, Finish, UnsupportedConstraint
from tests.unit.inference.engine.driving import VOCABULARY, ask, request, serving
from tests.unit.inference.engine.fake_runner import FakeRunner

LETTERS = Constraint(ConstraintKind.REGEX, "[a-z]+")


@pytest.fixture
def clock(monkeypatch):
    """The thread's processor time; each look at it is `clock.step` later."""

    class Clock:
        now = step = 0.0

        def thread_time(self) -> float:
            self.now += self.step
            return self.now

    stepped = Clock()
    monkeypatch.setattr(compiler, "time", stepped)
    return stepped


def test_lateness_adds_up_and_is_made_up_for(clock):
    state = GrammarState(Compiler(VOCABULARY, len(VOCABULARY), [127], 1).compile(LETTERS))
    words = torch.zeros((1, 4), dtype=torch.int32)
    clock.step = 2 * MASK_S
    for _ in range(int(GRACE_S / MASK_S) - 1):
        state.fill(words, 0, ())
    assert not state.too_slow
    clock.step = 0.0
    for _ in range(5):
        state.fill(words, 0, ())
    clock.step = 2 * MASK_S
    for _ in range(5):
        state.fill(words, 0, ())
    assert not state.too_slow
    for _ in range(2):
        state.fill(words, 0, ())
    assert state.too_slow


@pytest.mark.parametrize("n", [1, 3])
async def test_an_answer_whose_masks_are_slow_ends_and_the_others_go_on(clock, n):
    async with serving(FakeRunner(sharpness=1.0)) as engine:
        # Compiled first: what the clock says is about masks alone.
        await ask(engine, request((1,), 4, constraint=LETTERS))
        clock.step = 10.0
        slow, other = await asyncio.gather(
            ask(engine, request((1,), 20, n=n, constraint=LETTERS)),
            ask(engine, request((2,), 20, ignore_eos=True)),
            return_exceptions=True,
        )
        assert isinstance(slow, UnsupportedConstraint)
        assert "took too long to find" in str(slow)
        assert other.finish == [Finish.LENGTH]
        assert len(other.tokens[0]) == 20
        assert engine._stepper.scheduler.pool.held == 0
        clock.step = 0.0
        assert (await ask(engine, request((3,), 20, constraint=LETTERS))).finish[0] is not None
