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
from tests.integration.router.harness import MODEL, QUICK_TIMERS, read, router, routing

# What a stream may take beyond its timer.
SLACK_S = 0.25
DRIP = {**QUICK_TIMERS, "gap_s": 5, "floor_tokens_per_s": 20, "floor_window_s": 0.4}


@pytest.mark.parametrize(
    ("act", "reason", "limit_s"),
    [
        (Act(after=0, then="cut"), "SCRIPTED", 0.0),
        (Act(after=0, then="end"), "STREAM_CUT", 0.0),
        (Act(after=0, then="stall"), progress.HEADERS, QUICK_TIMERS["headers_s"]),
        (Act(after=0, then="stall", headers=True), progress.FIRST_TOKEN, QUICK_TIMERS["first_token_s"]),
    ],
)
async def test_a_fault_before_the_first_token_is_invisible(tmp_path, act, reason, limit_s) -> None:
    config = routing(
        deployments=[{"name": n, "service": n, "model": "m"} for n in ("a", "b")],
        models=[{"name": "pub", "chain": ["a", "b"]}],
    )
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, config) as running:
        a.acts.append(act)
        started = time.monotonic()
        answer = await running.answer("hello")
        took = time.monotonic() - started
        assert answer.error is None
        assert answer.text == text_of(token_ids("hello", 8))
        assert answer.causes == [("first", "a0", reason), ("failover", "b0", "")]
        assert len(b.requests) == 1
        assert limit_s <= took < limit_s + SLACK_S
        assert answer.disclosure.deployment == "b"
        assert not answer.disclosure.spliced


@pytest.mark.parametrize(
    ("act", "timers", "reason", "limit_s"),
    [
        (Act(tokens=30, after=12, then="cut"), QUICK_TIMERS, "SCRIPTED", 0.0),
        (Act(tokens=30, after=12, then="end"), QUICK_TIMERS, "STREAM_CUT", 0.0),
        (Act(tokens=30, after=12, then="stall"), QUICK_TIMERS, progress.GAP, QUICK_TIMERS["gap_s"]),
        (Act(tokens=30, after=12, then="drip", drip_s=0.15), DRIP, progress.FLOOR, DRIP["floor_window_s"]),
        (Act(tokens=30, then="nofinish"), QUICK_TIMERS, "STREAM_CUT", 0.0),
    ],
)
async def test_a_fault_after_the_first_token_is_resumed(tmp_path, act, timers, reason, limit_s) -> None:
    async with nodes("n0", "n1") as made, router(tmp_path, {"nodes": made}, routing(timers=timers)) as running:
        for node in made:
            node.default = Act(tokens=30)
        first = made[0]
        first.acts.append(act)
        # Whichever is asked first plays the part.
        made[1].acts.append(act)
        started = time.monotonic()
        call = running.ask("hello")
        await asyncio.wait([asyncio.ensure_future(n.started.wait()) for n in made], return_when=asyncio.FIRST_COMPLETED)
        for node in made:
            if not node.started.is_set():
                node.acts.clear()
        answer = await read(call)
        took = time.monotonic() - started
        assert answer.error is None
        assert answer.ids() == token_ids("hello", 30)
        assert answer.text == text_of(token_ids("hello", 30))
        assert answer.finishes == [common.FINISH_REASON_STOP]
        assert [(cause, why) for cause, _, why in answer.causes] == [("first", reason), ("resume", "")]
        assert answer.disclosure.spliced
        assert answer.disclosure.attempts[0].outcome == common.OUTCOME_MIDSTREAM_FAULT
        assert answer.messages[-1].summary.usage.completion_tokens == 30
        assert took < limit_s + SLACK_S


async def test_32_streams_outlive_a_killed_replica(tmp_path) -> None:
    async with nodes("n0", "n1", capacity=16) as made, router(tmp_path, {"nodes": made}, routing()) as running:
        for node in made:
            node.default = Act(tokens=60, delay_s=0.01)
        calls = [asyncio.ensure_future(read(running.ask(f"prompt {i}"))) for i in range(32)]
        async with asyncio.timeout(5):
            while sum(node.active for node in made) < 32:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)  # let tokens flow: the kill has to come in the middle
        assert made[0].active > 8
        killed = made[0].active
        await made[0].kill()
        answers = await asyncio.gather(*calls)
        assert [a.error for a in answers] == [None] * 32
        for i, answer in enumerate(answers):
            assert answer.ids() == token_ids(f"prompt {i}", 60)
            assert answer.text == text_of(token_ids(f"prompt {i}", 60))
        assert sum(answer.disclosure.spliced for answer in answers) == killed


async def test_silent_streams_of_an_unhealthy_replica_go_on_elsewhere_at_once(tmp_path) -> None:
    config = routing(timers={**QUICK_TIMERS, "gap_s": 30, "first_token_s": 30, "headers_s": 30})
    async with nodes("n0", "n1") as made, router(tmp_path, {"nodes": made}, config) as running:
        for node in made:
            node.default = Act(tokens=30, after=10, then="stall")
        call = asyncio.ensure_future(running.answer("hello"))
        await asyncio.wait([asyncio.ensure_future(n.started.wait()) for n in made], return_when=asyncio.FIRST_COMPLETED)
        asked = next(n for n in made if n.started.is_set())
        other = next(n for n in made if n is not asked)
        other.default = Act(tokens=30)
        started = time.monotonic()
        everybody = {"nodes": {n.name: n.address for n in made}}
        running.control.publish(everybody, health={asked.name: control_pb2.HEALTH_UNHEALTHY})
        answer = await call
        # Half a second of silence, counted from a look that comes at most half a second after the last token.
        assert time.monotonic() - started < 2 * 0.5 + SLACK_S
        assert answer.ids() == token_ids("hello", 30)
        assert [(cause, why) for cause, _, why in answer.causes] == [("first", "REPLICA_UNHEALTHY"), ("resume", "")]


async def test_a_draining_replica_keeps_its_streams_and_gets_no_others(tmp_path) -> None:
    async with nodes("n0", "n1") as made, router(tmp_path, {"nodes": made}, routing()) as running:
        for node in made:
            node.default = Act(tokens=60, delay_s=0.01)
        calls = [asyncio.ensure_future(running.answer(f"q{i}")) for i in range(12)]
        async with asyncio.timeout(5):
            while sum(node.active for node in made) < 12:
                await asyncio.sleep(0.005)
        everybody = {"nodes": {n.name: n.address for n in made}}
        running.control.publish(everybody, health={"n0": control_pb2.HEALTH_DRAINING})
        asked = len(made[0].requests)
        assert asked
        await running.answer("sees the new snapshot")
        assert {(await running.answer(f"q{i}", max_tokens=2)).causes[0][1] for i in range(10)} == {"n1"}
        answers = await asyncio.gather(*calls)
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
        for i in range(10):
            started = time.monotonic()
            answer = await running.answer(f"q{i}")
            assert answer.error is None
            assert time.monotonic() - started < SLACK_S


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
            node.default = Act(after=0, error=ResourceExhausted("queue full", retry_after_s=7.0))
        for expected in (2, 2):
            answer = await running.answer("hello")
            assert isinstance(answer.error, ResourceExhausted)
            assert answer.error.retry_after_s == pytest.approx(7.0, abs=0.5)
            # The second time nobody is asked: both said when to come back.
            assert sum(len(node.requests) for node in made) == expected
        state = await running.state()
        assert {r.breaker for r in state.values()} == {1}


async def test_a_client_that_leaves_ends_the_attempt_at_its_node(tmp_path) -> None:
    async with nodes("n0") as (node,), router(tmp_path, {"nodes": [node]}, routing()) as running:
        for act in (Act(tokens=1000, delay_s=0.01), Act(after=0, then="stall")):
            node.default = act
            node.started.clear()
            call = running.ask("hello")
            reading = asyncio.ensure_future(read(call))
            await node.started.wait()
            before = node.cancelled
            call.cancel()
            started = time.monotonic()
            async with asyncio.timeout(5):
                while node.cancelled == before:
                    await asyncio.sleep(0.002)
            assert time.monotonic() - started < SLACK_S
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await running.until(lambda state: all(r.inflight == 0 for r in state.values()))
            assert (await running.state())["d/n0"].breaker == 1


async def test_a_deadline_ends_typed_and_in_time(tmp_path) -> None:
    timers = {**QUICK_TIMERS, "gap_s": 30, "first_token_s": 30, "headers_s": 30}
    async with nodes("n0") as (node,), router(tmp_path, {"nodes": [node]}, routing(timers=timers)) as running:
        for act in (Act(after=0, then="stall"), Act(after=3, then="stall")):
            node.default = act
            started = time.monotonic()
            answer = await running.answer("hello", within_s=0.4)
            assert isinstance(answer.error, DeadlineExceeded)
            # The router's own words, with what it had tried, not the client library's.
            assert len(answer.disclosure.attempts) == 1
            assert time.monotonic() - started < 0.4 + SLACK_S
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
