"""Who waits for whose grammar: judged by the order in which they are compiled, never by the time it takes."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.adapters.torch.constraints.grammar_cache import KEPT_GRAMMARS, Grammars
from inference.core.constraints.compile_queue import MAX_WAITING, CompileQueue
from inference.core.port import Constraint, ConstraintKind, EngineError, EngineOverloaded, UnsupportedConstraint
from tests.unit.inference.engine.driving import VOCABULARY, serving, text
from tests.unit.inference.engine.fake_runner import FakeRunner


def regex(source: str) -> Constraint:
    return Constraint(ConstraintKind.REGEX, source)


class Gated(Grammars):
    """Compiles nothing; the first compile lasts until it is let go."""

    def __init__(self) -> None:
        super().__init__(lambda: VOCABULARY, len(VOCABULARY), [0], 1)
        self.compiled: list[str] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def _compile(self, constraint: Constraint) -> object:
        self.compiled.append(constraint.source)
        self.begun.set()
        self.go.wait()
        if constraint.source == "refused":
            raise UnsupportedConstraint("no")
        return constraint.source


@pytest.fixture
def grammars():
    gated = Gated()
    yield gated
    gated.go.set()
    gated.close()


async def under_way(grammars: Gated) -> None:
    await asyncio.to_thread(grammars.begun.wait)


def ask(grammars: Gated, source: str, tenant: str) -> asyncio.Task[object]:
    return asyncio.ensure_future(grammars.compile(regex(source), tenant))


async def test_an_ordinary_grammar_waits_for_one_of_another_tenants_ten(grammars):
    hostile = [ask(grammars, f"hostile {i}", "mallory") for i in range(10)]
    await under_way(grammars)
    ordinary = [ask(grammars, f"ordinary {i}", "alice") for i in range(2)] + [ask(grammars, "plain", "bob")]
    await asyncio.sleep(0)
    grammars.go.set()
    await asyncio.gather(*hostile, *ordinary)
    assert grammars.compiled[:5] == ["hostile 0", "ordinary 0", "hostile 1", "plain", "ordinary 1"]
    assert grammars.compiled[5:] == [f"hostile {i}" for i in range(2, 10)]


async def test_an_ordinary_schema_is_answered_while_nine_costly_ones_of_another_tenant_still_wait():
    """The whole engine, with the real compiler; a costly compile ends when the test lets it."""
    async with serving(FakeRunner(sharpness=1.0, num_blocks=128)) as engine:
        grammars, begun, let = engine._grammars, threading.Event(), threading.Semaphore(0)
        compile_now = grammars._compile

        def compile_when_let(wanted: Constraint) -> object:
            if "costly" in wanted.source:
                begun.set()
                let.acquire()
            return compile_now(wanted)

        grammars._compile = compile_when_let
        costly = [
            asyncio.ensure_future(text(engine, [1], tenant="mallory", constraint=regex(f"costly {i}")))
            for i in range(10)
        ]
        await asyncio.to_thread(begun.wait)
        schema = Constraint(ConstraintKind.JSON_SCHEMA, '{"enum": ["yes", "no"]}')
        ordinary = asyncio.ensure_future(text(engine, [2], tenant="alice", constraint=schema))
        while len(grammars._queue) < len(costly):
            await asyncio.sleep(0)
        let.release()
        assert await ordinary
        assert sum(task.done() for task in costly) <= 1
        for _ in costly:
            let.release()
        await asyncio.gather(*costly)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_turns_are_fair_and_each_tenants_jobs_in_order(steps):
    queue: CompileQueue[int] = CompileQueue()
    waiting: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    passed = dict.fromkeys(waiting, 0)
    for number, (tenant, put) in enumerate(steps):
        if put and len(waiting[tenant]) < MAX_WAITING:
            queue.put(tenant, number)
            waiting[tenant].append(number)
        elif put:
            with pytest.raises(EngineOverloaded):
                queue.put(tenant, number)
        else:
            taken = queue.take()
            owner = next((t for t, jobs in waiting.items() if taken in jobs), None)
            assert (owner is None) == (not any(waiting.values()))
            for other, jobs in waiting.items():
                passed[other] = passed[other] + 1 if jobs and other != owner else 0
                assert passed[other] <= 3
            if owner:
                assert taken == waiting[owner].pop(0)
        assert len(queue) == sum(map(len, waiting.values()))


async def test_a_grammar_that_is_kept_waits_for_nobody(grammars):
    grammars.go.set()
    assert await grammars.compile(regex("known"), "alice") == "known"
    grammars.begun.clear()
    grammars.go.clear()
    blocked = ask(grammars, "hostile", "mallory")
    await under_way(grammars)
    assert await grammars.compile(regex("known"), "alice") == "known"
    assert not blocked.done()
    grammars.go.set()
    await blocked
    assert grammars.compiled == ["known", "hostile"]


async def test_what_nobody_waits_for_any_more_is_not_compiled(grammars):
    first = ask(grammars, "first", "alice")
    await under_way(grammars)
    left, shared, stays = (ask(grammars, source, "alice") for source in ("left", "shared", "shared"))
    await asyncio.sleep(0)
    for task in (left, shared):
        task.cancel()
    await asyncio.wait((left, shared))
    again = ask(grammars, "left", "bob")
    await asyncio.sleep(0)
    again.cancel()
    await asyncio.wait((again,))
    grammars.go.set()
    assert await stays == "shared"
    await first
    assert grammars.compiled == ["first", "shared"]


async def test_a_compile_that_runs_serves_whoever_asks_after_the_first_has_left(grammars):
    first = ask(grammars, "costly", "alice")
    await under_way(grammars)
    first.cancel()
    await asyncio.wait((first,))
    second = ask(grammars, "costly", "alice")
    await asyncio.sleep(0)
    grammars.go.set()
    assert await second == "costly"
    assert grammars.compiled == ["costly"]


async def test_a_tenants_queue_is_bounded_and_others_are_let_in(grammars):
    running = ask(grammars, "running", "mallory")
    await under_way(grammars)
    waiting = [ask(grammars, str(i), "mallory") for i in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(EngineOverloaded) as caught:
        await grammars.compile(regex("one more"), "mallory")
    assert caught.value.retry_after_s > 0
    other = ask(grammars, "other", "alice")
    await asyncio.sleep(0)
    grammars.go.set()
    assert await other == "other"
    await asyncio.gather(running, *waiting)


async def test_tenants_share_no_grammar_and_push_none_of_anothers_out(grammars):
    grammars.go.set()
    await grammars.compile(regex("same"), "alice")
    for i in range(KEPT_GRAMMARS + 1):
        await grammars.compile(regex(str(i)), "mallory")
    await grammars.compile(regex("same"), "mallory")
    assert grammars.compiled.count("same") == 2
    before = len(grammars.compiled)
    await grammars.compile(regex("same"), "alice")
    await grammars.compile(regex(str(KEPT_GRAMMARS)), "mallory")
    assert len(grammars.compiled) == before
    await grammars.compile(regex("0"), "mallory")
    assert len(grammars.compiled) == before + 1


async def test_a_refusal_reaches_all_who_wait_and_is_not_kept(grammars):
    both = [ask(grammars, "refused", "alice") for _ in range(2)]
    await under_way(grammars)
    grammars.go.set()
    assert [type(e) for e in await asyncio.gather(*both, return_exceptions=True)] == [UnsupportedConstraint] * 2
    with pytest.raises(UnsupportedConstraint):
        await grammars.compile(regex("refused"), "alice")
    assert len(grammars.compiled) == 2


async def test_closing_ends_those_that_wait(grammars):
    running = ask(grammars, "running", "alice")
    await under_way(grammars)
    waiting = ask(grammars, "waiting", "alice")
    await asyncio.sleep(0)
    grammars.close()
    with pytest.raises(EngineError):
        await waiting
    grammars.go.set()
    assert await running == "running"
    with pytest.raises(EngineError):
        await grammars.compile(regex("later"), "alice")
    assert grammars.compiled == ["running"]


async def test_a_caller_that_leaves_while_its_grammar_waits_leaves_no_slot_taken():
    async with serving(FakeRunner(sharpness=1.0, num_blocks=128)) as engine:
        engine._grammars.close()
        gated = engine._grammars = Gated()
        asked = asyncio.ensure_future(text(engine, [1], constraint=regex("[ab]")))
        await under_way(gated)
        assert engine._admission.inside == 1
        asked.cancel()
        await asyncio.wait((asked,))
        assert engine._admission.inside == 0
        gated.go.set()
