"""Answers that their callers take whole, committed when all of it is there; and what a node says before it begins."""

import pytest

from headrace.common.v1 import generation_pb2 as common
from mesh.errors import StreamCut, Unavailable
from tests.fakes.inference import Act, nodes, text_of, token_ids
from tests.integration.router.harness import DEPLOYMENT, MODEL, TIMERS, router, routing

ABLE = ["chat", "completion", "tools", "json_schema", "logprobs"]
# Deployments of different models: nothing of one can be continued by the other.
PAIR = [{"name": n, "service": n, "model": "m", "capabilities": ABLE, "revision": n} for n in ("a", "b")]
CHAIN = {**MODEL, "chain": ["a", "b"]}
FAULTS = {
    "error": (Act(tokens=20, after=7), {}),
    "end": (Act(tokens=20, after=7, then="end"), {}),
    "stall": (Act(tokens=20, after=7, then="stall"), {"gap_s": 0.3}),
    "no finish": (Act(tokens=20, then="nofinish"), {}),
    "no summary": (Act(tokens=20, after=20, then="end"), {}),
}
ASKED = {
    "text": {},
    "two choices": {"n": 2},
    "tools": {"chat": True, "tools": ["f"]},
    "schema": {"json_schema": "{}"},
    "log probabilities": {"logprobs": True},
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_at_any_point_is_failed_over_unseen(tmp_path, fault, asked) -> None:
    act, timers = FAULTS[fault]
    first, second = PAIR
    config = routing(deployments=[first | {"timers": TIMERS | timers}, second], models=[CHAIN])
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, config) as running:
        a.default, b.default = act, Act(tokens=20)
        answer = await running.answer("hello", whole=True, **ASKED[asked])
        assert answer.error is None
        assert answer.ids() == token_ids("hello", 20)
        assert answer.text == text_of(token_ids("hello", 20))
        assert [(a.deployment, a.outcome) for a in answer.disclosure.attempts] == [
            ("a", common.OUTCOME_MIDSTREAM_FAULT),
            ("b", common.OUTCOME_OK),
        ]
        assert not answer.disclosure.spliced
        # What the first one gave is paid for, and seen in its attempt alone.
        assert answer.disclosure.attempts[0].usage.completion_tokens >= 7
        # One message holds it all.
        (message,) = answer.messages
        assert message.disclosure == answer.disclosure
        choices = ASKED[asked].get("n", 1)
        assert [d.index for d in message.deltas] == list(range(choices))
        assert all(d.finish_reason and len(d.token_ids) == 20 for d in message.deltas)
        assert message.summary.usage.completion_tokens == 20 * choices
        if asked == "log probabilities":
            assert [p.token_id for p in message.deltas[0].logprobs] == token_ids("hello", 20)


async def test_pieces_of_tool_calls_are_put_together(tmp_path) -> None:
    config = routing(deployments=[DEPLOYMENT | {"capabilities": ABLE}])
    async with nodes("n0") as (node,), router(tmp_path, {"nodes": [node]}, config) as running:
        node.default = Act(tokens=20, tool_from=5)
        answer = await running.answer("hello", whole=True, chat=True, tools=["f"])
        (delta,) = answer.messages[0].deltas
        assert delta.text == text_of(token_ids("hello", 5))
        (call,) = delta.tool_calls
        assert (call.index, call.id, call.name) == (0, "c1", "f")
        assert call.arguments_json == text_of(token_ids("hello", 20)[5:])


async def test_what_is_too_large_to_hold_is_committed(tmp_path) -> None:
    """The router's memory is not the caller's: beyond its bound an answer goes out, and a cut is then told."""
    config = routing(deployments=PAIR, models=[CHAIN])
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, config) as running:
        a.default = Act(tokens=6, after=5, says="x" * 1024 * 1024)
        answer = await running.answer("hello", whole=True)
        assert isinstance(answer.error, StreamCut)
        assert len(answer.text) >= 4 * 1024 * 1024
        assert b.requests == []


async def test_when_nobody_answers_whole_the_error_is_typed_and_nothing_was_said(tmp_path) -> None:
    config = routing(deployments=PAIR, models=[CHAIN])
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, config) as running:
        a.default = b.default = Act(after=5)
        answer = await running.answer("hello", whole=True)
        assert isinstance(answer.error, Unavailable)
        assert answer.error.reason == "NO_HEALTHY_DEPLOYMENT"
        assert answer.messages == []
        # What was delivered to the router was made, and is counted.
        assert [a.usage.completion_tokens for a in answer.disclosure.attempts] == [5] * 4


async def test_a_model_may_hold_every_answer_whole(tmp_path) -> None:
    config = routing(deployments=PAIR, models=[CHAIN | {"commit": "whole"}])
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, config) as running:
        a.default, b.default = Act(tokens=30, after=29), Act(tokens=30)
        answer = await running.answer("hello")
        assert answer.error is None
        assert answer.ids() == token_ids("hello", 30)
        assert not answer.disclosure.spliced
        # It is streamed all the same, once it may be.
        assert len(answer.messages) > 1


async def test_what_a_node_says_of_its_progress_is_passed_on_and_commits_nothing(tmp_path) -> None:
    config = routing(deployments=PAIR, models=[CHAIN])
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, config) as running:
        a.default, b.default = Act(progress=3, after=0), Act(progress=1)
        for whole in (False, True):
            answer = await running.answer("hello", whole=whole)
            assert answer.error is None
            assert answer.ids() == token_ids("hello", 8)
            waited = [m for m in answer.messages if m.HasField("progress")]
            assert len(waited) == 4
            assert answer.messages[:4] == waited
            assert not any(m.deltas or m.HasField("disclosure") for m in waited)
            assert waited[0].progress.stage == common.GenerationProgress.STAGE_PREFILL
            # The first message of the answer is still the one that says who gives it.
            assert answer.messages[4].disclosure.deployment == "b"


async def test_progress_does_not_win_a_race_nor_leave_an_answer_in_hand(tmp_path) -> None:
    hedged = CHAIN | {"hedge": {"after_s": 0.05}}
    async with (
        nodes("a0", "b0") as (a, b),
        router(tmp_path, {"a": [a], "b": [b]}, routing(deployments=PAIR, models=[hedged])) as running,
    ):
        a.default, b.default = Act(progress=2, after=0, then="stall"), Act(progress=2)
        answer = await running.answer("hello")
        assert (answer.error, answer.disclosure.deployment) == (None, "b")
        assert not any(m.HasField("progress") for m in answer.messages)
