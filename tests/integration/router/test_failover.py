"""Failover over real gRPC: faults before and after the first token, and streams that go on elsewhere."""

import asyncio
import time

import pytest

from headrace.common.v1 import generation_pb2 as common
from headrace.control.v1 import control_pb2
from mesh.errors import (
    DeadlineExceeded,
    InvalidArgument,
    Outcome,
    ResourceExhausted,
    StreamCut,
    Unavailable,
)
from router.core import progress
from tests.fakes.inference import Act, nodes, text_of, token_ids
from tests.integration.router.harness import MODEL, PATIENT_S, TIMERS, WAIT_S, read, router, routing, until


def hasty_then_patient(**timers: float) -> dict[str, object]:
    """Deployments a and b of the same model, tried in this order; only a has those timers."""
    first, second = ({"name": name, "service": name, "model": "m"} for name in ("a", "b"))
    return routing(
        deployments=[first | {"timers": TIMERS | timers}, second], models=[{"name": "pub", "chain": ["a", "b"]}]
    )


@pytest.mark.parametrize(
    ("act", "reason", "timers"),
    [
        (Act(after=0, then="cut"), "SCRIPTED", {}),
        (Act(after=0, then="end"), "STREAM_CUT", {}),
        (Act(after=0, then="stall"), progress.HEADERS, {"headers_s": 0.4}),
        (Act(after=0, then="stall", headers=True), progress.FIRST_TOKEN, {"first_token_s": 0.5}),
    ],
)
async def test_a_fault_before_the_first_token_is_invisible(tmp_path, act, reason, timers) -> None:
    config = hasty_then_patient(**timers)
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, config) as running:
        a.acts.append(act)
        started = time.monotonic()
        answer = await running.answer("hello")
        took = time.monotonic() - started
        assert answer.error is None
        assert answer.text == text_of(token_ids("hello", 8))
        assert answer.causes == [("first", "a0", reason), ("failover", "b0", "")]
        assert len(b.requests) == 1
        assert sum(timers.values()) <= took < PATIENT_S
        assert answer.disclosure.deployment == "b"
        assert not answer.disclosure.spliced


@pytest.mark.parametrize(
    ("act", "reason", "timers"),
    [
        (Act(tokens=30, after=12, then="cut"), "SCRIPTED", {}),
        (Act(tokens=30, after=12, then="end"), "STREAM_CUT", {}),
        (Act(tokens=30, after=12, then="stall"), progress.GAP, {"gap_s": 0.3}),
        (
            Act(tokens=30, after=12, then="drip", drip_s=0.15),
            progress.FLOOR,
            {"floor_tokens_per_s": 20, "floor_window_s": 0.4},
        ),
        (Act(tokens=30, then="nofinish"), "STREAM_CUT", {}),
    ],
)
async def test_a_fault_after_the_first_token_is_resumed(tmp_path, act, reason, timers) -> None:
    config = hasty_then_patient(**timers)
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, config) as running:
        a.acts.append(act)
        b.default = Act(tokens=30)
        started = time.monotonic()
        answer = await running.answer("hello")
        took = time.monotonic() - started
        assert answer.error is None
        assert answer.ids() == token_ids("hello", 30)
        assert answer.text == text_of(token_ids("hello", 30))
        assert answer.finishes == [common.FINISH_REASON_STOP]
        assert answer.causes == [("first", "a0", reason), ("resume", "b0", "")]
        assert answer.disclosure.spliced
        assert answer.disclosure.attempts[0].outcome == common.OUTCOME_MIDSTREAM_FAULT
        assert answer.messages[-1].summary.usage.completion_tokens == 30
        assert took < PATIENT_S


async def test_32_streams_outlive_a_killed_replica(tmp_path) -> None:
    async with nodes("n0", "n1", capacity=16) as made, router(tmp_path, {"nodes": made}, routing()) as running:
        go = asyncio.Event()
        for node in made:
            node.default = Act(tokens=60, hold=go, hold_at=20)
        begun = [running.begin(f"prompt {i}") for i in range(32)]
        # The kill has to come in the middle of every one of them.
        await until(lambda: all(len(each.so_far.ids()) == 20 for each in begun))
        killed = made[0].active
        assert killed > 8
        await made[0].kill()
        go.set()
        answers = await asyncio.gather(*(each.rest for each in begun))
        assert [a.error for a in answers] == [None] * 32
        for i, answer in enumerate(answers):
            assert answer.ids() == token_ids(f"prompt {i}", 60)
            assert answer.text == text_of(token_ids(f"prompt {i}", 60))
        assert sum(answer.disclosure.spliced for answer in answers) == killed


async def test_silent_streams_of_an_unhealthy_replica_go_on_elsewhere_at_once(tmp_path) -> None:
    async with nodes("n0", "n1") as made, router(tmp_path, {"nodes": made}, routing()) as running:
        for node in made:
            node.default = Act(tokens=30, after=10, then="stall")
        begun = running.begin("hello")
        await until(lambda: len(begun.so_far.ids()) == 10)
        asked = next(n for n in made if n.requests)
        other = next(n for n in made if n is not asked)
        other.default = Act(tokens=30)
        everybody = {"nodes": {n.name: n.address for n in made}}
        running.control.publish(everybody, health={asked.name: control_pb2.HEALTH_UNHEALTHY})
        # Half a second of silence is enough, counted from a look that comes at most half a second after the last token.
        answer = await asyncio.wait_for(begun.rest, WAIT_S)
        assert answer.ids() == token_ids("hello", 30)
        assert [(cause, why) for cause, _, why in answer.causes] == [("first", "REPLICA_UNHEALTHY"), ("resume", "")]


async def test_a_draining_replica_keeps_its_streams_and_gets_no_others(tmp_path) -> None:
    async with nodes("n0", "n1", capacity=16) as made, router(tmp_path, {"nodes": made}, routing()) as running:
        go = asyncio.Event()
        for node in made:
            node.default = Act(tokens=60, hold=go, hold_at=20)
        begun = [running.begin(f"q{i}") for i in range(12)]
        await until(lambda: all(len(each.so_far.ids()) == 20 for each in begun))
        assert made[0].requests
        for node in made:
            node.default = Act()
        # Whom the router asks for these is n0's or n1's by their words: only the snapshot can make it n1 for all.
        others = [f"q{i}" for i in range(12)]
        before = {(await running.answer(words)).causes[0][1] for words in others}
        assert before == {"n0", "n1"}
        everybody = {"nodes": {n.name: n.address for n in made}}
        running.control.publish(everybody, health={"n0": control_pb2.HEALTH_DRAINING})
        async with asyncio.timeout(WAIT_S):
            while {(await running.answer(words)).causes[0][1] for words in others} != {"n1"}:
                await asyncio.sleep(0.005)
        asked = len(made[0].requests)
        assert {(await running.answer(words)).causes[0][1] for words in others} == {"n1"}
        assert len(made[0].requests) == asked
        go.set()
        answers = await asyncio.gather(*(each.rest for each in begun))
        assert all(a.error is None and not a.disclosure.spliced for a in answers)


async def test_a_stream_that_nobody_can_resume_ends_in_a_typed_error(tmp_path) -> None:
    async with nodes("n0") as (node,), router(tmp_path, {"nodes": [node]}, routing()) as running:
        node.default = Act(tokens=30, after=5)
        answer = await running.answer("hello")
        assert isinstance(answer.error, StreamCut)
        assert answer.error.reason == "STREAM_CUT"
        assert answer.error.outcome is Outcome.MIDSTREAM_FAULT
        assert answer.error.metadata["cause"] == "SCRIPTED"
        # It went as far as the attempts allowed, each from where the last had stopped.
        assert answer.ids() == token_ids("hello", len(answer.ids()))
        assert not answer.finishes
        assert len(answer.disclosure.attempts) == 4


async def test_another_revision_never_resumes(tmp_path) -> None:
    async with (
        nodes("n0") as (a,),
        nodes("n1", revision="r2") as (b,),
        router(tmp_path, {"nodes": [a, b]}, routing()) as running,
    ):
        for node in (a, b):
            node.default = Act(tokens=30, after=5)
        answer = await running.answer("hello")
        assert isinstance(answer.error, StreamCut)
        assert len({replica for _, replica, _ in answer.causes}) == 1


async def test_every_choice_goes_on_where_it_was(tmp_path) -> None:
    async with nodes("n0", "n1") as made, router(tmp_path, {"nodes": made}, routing()) as running:
        for node in made:
            node.acts.append(Act(tokens=10, after=13))
        answer = await running.answer("hello", n=2)
        # The first choice had ended when its node failed, the second had not.
        assert answer.ids(0) == token_ids("hello", 10)
        assert answer.ids(1)[:3] == token_ids("hello#1", 3)


async def test_a_refused_connection_is_failed_over_at_once(tmp_path) -> None:
    async with nodes("n0", "n1") as made, router(tmp_path, {"nodes": made}, routing()) as running:
        await made[0].kill()
        # No timer runs out so soon: what ends the attempt is the refusal.
        async with asyncio.timeout(WAIT_S):
            for i in range(10):
                assert (await running.answer(f"q{i}")).error is None


async def test_the_callers_own_faults_are_not_retried(tmp_path) -> None:
    async with nodes("n0", "n1") as made, router(tmp_path, {"nodes": made}, routing()) as running:
        error = InvalidArgument("too long", field="prompt", reason="CONTEXT_TOO_LONG")
        for node in made:
            node.default = Act(after=0, error=error)
        answer = await running.answer("hello")
        assert isinstance(answer.error, InvalidArgument)
        assert (answer.error.reason, answer.error.field) == ("CONTEXT_TOO_LONG", "prompt")
        assert sum(len(node.requests) for node in made) == 1
        assert len(answer.disclosure.attempts) == 1


async def test_when_all_are_busy_the_caller_hears_when_to_come_back(tmp_path) -> None:
    async with nodes("n0", "n1") as made, router(tmp_path, {"nodes": made}, routing()) as running:
        for node in made:
            node.default = Act(after=0, error=ResourceExhausted("queue full", retry_after_s=50.0))
        for expected in (2, 2):
            answer = await running.answer("hello")
            assert isinstance(answer.error, ResourceExhausted)
            assert 50.0 - WAIT_S < answer.error.retry_after_s <= 50.0
            # The second time nobody is asked: both said when to come back.
            assert sum(len(node.requests) for node in made) == expected
        state = await running.state()
        assert {r.breaker for r in state.values()} == {1}


async def test_a_client_that_leaves_ends_the_attempt_at_its_node(tmp_path) -> None:
    async with nodes("n0") as (node,), router(tmp_path, {"nodes": [node]}, routing()) as running:
        for act in (Act(tokens=1000, hold=asyncio.Event(), hold_at=5), Act(after=0, then="stall")):
            node.default = act
            node.started.clear()
            call = running.ask("hello")
            reading = asyncio.ensure_future(read(call))
            await node.started.wait()
            before = node.cancelled
            call.cancel()
            await until(lambda before=before: node.cancelled > before)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await running.until(lambda state: all(r.inflight == 0 for r in state.values()))
            assert (await running.state())["d/n0"].breaker == 1


async def test_a_deadline_ends_typed_and_in_time(tmp_path, monkeypatch) -> None:
    # A quarter of the time is kept back for the way here, however busy the machine.
    monkeypatch.setattr("router.servicer._MARGIN_S", 10.0)
    async with nodes("n0") as (node,), router(tmp_path, {"nodes": [node]}, routing()) as running:
        for act in (Act(after=0, then="stall"), Act(after=3, then="stall")):
            node.default = act
            answer = await running.answer("hello", within_s=2.0)
            assert isinstance(answer.error, DeadlineExceeded)
            # The router's own words, with what it had tried, not the client library's.
            assert len(answer.disclosure.attempts) == 1
        assert (await running.state())["d/n0"].breaker == 1


async def test_a_static_answer_is_the_last_resort_and_says_so(tmp_path) -> None:
    config = routing(models=[{**MODEL, "fallback": "Sorry, come back later."}])
    async with nodes("n0") as (node,), router(tmp_path, {"nodes": [node]}, config) as running:
        node.default = Act(after=0)
        answer = await running.answer("hello")
        assert answer.error is None
        assert answer.text == "Sorry, come back later."
        assert answer.disclosure.fallback
        assert not answer.disclosure.deployment
        node.default = Act(after=3)
        assert isinstance((await running.answer("hello")).error, StreamCut)


async def test_the_attempt_cap_is_the_smaller_of_the_callers_and_the_models(tmp_path) -> None:
    async with nodes("n0", "n1") as made, router(tmp_path, {"nodes": made}, routing()) as running:
        for node in made:
            node.default = Act(after=0)
        answer = await running.answer("hello", budget={"attempts": 2})
        assert isinstance(answer.error, Unavailable)
        assert answer.error.reason == "NO_HEALTHY_DEPLOYMENT"
        assert len(answer.disclosure.attempts) == 2
