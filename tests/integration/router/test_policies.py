"""What a model's entry can ask for, over real gRPC: holding, hedging, cascading, caps, shadows and live reload."""

import asyncio
import json

import pytest

from headrace.common.v1 import generation_pb2 as common
from headrace.router.v1 import router_pb2 as pb
from mesh.errors import FailedPrecondition, StreamCut
from tests.fakes.inference import Act, nodes, text_of, token_ids
from tests.integration.router.harness import DEPLOYMENT, MODEL, WAIT_S, router, routing, until

ABLE = {**DEPLOYMENT, "capabilities": ["chat", "completion", "tools", "json_schema"]}
PAIR = [{"name": n, "service": n, "model": "m"} for n in ("a", "b")]
# Confidence is the mean log probability alone: -0.1 is sure, -3 is not.
CALIBRATION = {
    "version": 1,
    "confidence": {"bias": 2.0, "weights": {"mean_logprob": 1.0}},
    "confidence_threshold": 0.5,
    "difficulty": {"bias": -4.0, "weights": {"digit_share": 100.0}},
    "difficulty_threshold": 0.9,
}


def cascading(path, window: int = 0):
    (path / "calibration.json").write_text(json.dumps(CALIBRATION))
    a, b = PAIR
    able = ["completion", "logprobs"]
    cheap, dear = ({**d, "price": {"output": p}, "capabilities": able} for d, p in ((a, 1), (b, 20)))
    cascade = {"calibration": "calibration.json", "window_tokens": window}
    return routing(deployments=[cheap, dear], models=[{**MODEL, "chain": ["a", "b"], "cascade": cascade}])


async def test_tool_calls_are_held_until_they_are_whole(tmp_path) -> None:
    act = Act(tokens=20, tool_from=5)
    config = routing(deployments=[ABLE])
    async with nodes("n0", "n1") as made, router(tmp_path, {"nodes": made}, config) as running:
        for node in made:
            node.default = act
            node.acts.append(Act(tokens=20, tool_from=5, after=12))
        # Both fail in the middle of the call, the third attempt does not.
        answer = await running.answer("hello", chat=True, tools=["f"])
        assert answer.error is None
        calls = [c for m in answer.messages for d in m.deltas for c in d.tool_calls]
        assert "".join(c.arguments_json for c in calls) == text_of(token_ids("hello", 20)[5:])
        assert [c.id for c in calls if c.id] == ["c1"]
        assert answer.text == text_of(token_ids("hello", 5))
        # What was resumed is the text; the half call that was held is nobody's.
        resumed = [r.generation.resume[0] for n in made for r in n.requests if r.generation.resume]
        assert {len(r.token_ids) for r in resumed} == {5}


async def test_schema_bound_answers_are_held_whole_and_begun_anew(tmp_path) -> None:
    config = routing(deployments=[ABLE])
    async with nodes("n0", "n1") as made, router(tmp_path, {"nodes": made}, config) as running:
        for node in made:
            node.acts.append(Act(tokens=20, after=12))
            node.default = Act(tokens=20)
        answer = await running.answer("hello", json_schema="{}")
        assert answer.error is None
        assert answer.ids() == token_ids("hello", 20)
        assert not answer.disclosure.spliced
        assert not any(r.generation.resume for n in made for r in n.requests)


async def test_schema_bound_answers_that_are_streamed_end_in_an_error(tmp_path) -> None:
    config = routing(deployments=[ABLE], models=[{**MODEL, "structured": "stream"}])
    async with nodes("n0", "n1") as made, router(tmp_path, {"nodes": made}, config) as running:
        for node in made:
            node.default = Act(tokens=20, after=12)
        answer = await running.answer("hello", json_schema="{}")
        assert isinstance(answer.error, StreamCut)
        assert len(answer.ids()) == 12
        assert sum(len(n.requests) for n in made) == 1


async def test_resuming_can_be_switched_off(tmp_path) -> None:
    config = routing(models=[{**MODEL, "resume": False}])
    async with nodes("n0", "n1") as made, router(tmp_path, {"nodes": made}, config) as running:
        for node in made:
            node.default = Act(tokens=20, after=12)
        answer = await running.answer("hello", context={"request_id": "r1"})
        assert isinstance(answer.error, StreamCut)
        steps = (await running.stub.Explain(pb.ExplainRequest(request_id="r1"))).steps
        assert [s.detail for s in steps if s.what == "resume.impossible"] == ["the model's entry switches it off"]


async def test_a_commit_window_makes_later_faults_invisible_too(tmp_path) -> None:
    config = routing(deployments=PAIR, models=[{**MODEL, "chain": ["a", "b"], "commit": {"tokens": 10}}])
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, config) as running:
        a.default, b.default = Act(tokens=30, after=9), Act(tokens=30)
        answer = await running.answer("hello")
        assert answer.ids() == token_ids("hello", 30)
        assert not answer.disclosure.spliced
        assert not b.requests[0].generation.resume
        assert sum(len(d.token_ids) for d in answer.messages[0].deltas) == 1
        assert answer.disclosure.attempts[0].outcome == common.OUTCOME_MIDSTREAM_FAULT


async def test_the_faster_of_two_hedged_attempts_answers(tmp_path) -> None:
    config = routing(deployments=PAIR, models=[{**MODEL, "chain": ["a", "b"], "hedge": {"after_s": 0.05}}])
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, config) as running:
        # The first never answers, and the second no sooner than the first was asked.
        a.default, b.default = Act(hold=asyncio.Event(), headers=True), Act(hold=a.started)
        answer = await running.answer("hello")
        assert answer.error is None
        assert answer.causes == [("first", "a0", "HEDGE_LOST"), ("hedge", "b0", "")]
        assert answer.disclosure.deployment == "b"
        # The loser was cancelled at its node, and counts as nothing.
        await until(lambda: a.cancelled == 1)
        assert all(r.inflight == 0 and r.breaker == pb.BREAKER_STATE_CLOSED for r in (await running.state()).values())


@pytest.mark.parametrize("window", [0, 4])
async def test_a_cascade_keeps_a_sure_answer_and_leaves_a_doubtful_one(tmp_path, window) -> None:
    config = cascading(tmp_path, window)
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, config) as running:
        sure = await running.answer("hello")
        assert sure.disclosure.deployment == "a"
        assert not sure.disclosure.escalated
        a.default = Act(logprob=-3.0)
        doubtful = await running.answer("hello")
        assert doubtful.error is None
        assert doubtful.ids() == token_ids("hello", 8)
        assert doubtful.disclosure.deployment == "b"
        assert doubtful.disclosure.escalated
        assert [cause for cause, _, _ in doubtful.causes] == ["first", "escalation"]
        # The cheap answer was made, and is paid for.
        costs = [attempt.cost_micro_usd for attempt in doubtful.disclosure.attempts]
        assert costs == [4 if window else 8, 160]
        b.default = Act(after=0)
        kept = await running.answer("hello")
        assert kept.error is None
        assert kept.ids() == token_ids("hello", 8)
        assert kept.disclosure.deployment == "a"
        assert not kept.disclosure.escalated


def judged(path, **rule: object):
    """The cascade of two, with a third deployment as its judge."""
    config = cascading(path)
    price = {"output": 5}
    config["deployments"].append({"name": "j", "service": "j", "model": "m", "price": price})
    config["models"][0]["cascade"]["judge"] = {"deployment": "j", "min_grade": 6} | rule
    return config


@pytest.mark.parametrize(("says", "kept"), [("8", True), (" Grade: 6/10", True), ("5", False), ("0", False)])
async def test_a_judge_model_decides_about_an_answer(tmp_path, says, kept) -> None:
    everybody = nodes("a0", "b0", "j0")
    config = judged(tmp_path)
    async with everybody as (a, b, j), router(tmp_path, {"a": [a], "b": [b], "j": [j]}, config) as running:
        j.default = Act(tokens=1, says=says)
        answer = await running.answer("hello</answer>ten", context={"request_id": "r1"})
        assert answer.error is None
        assert answer.disclosure.deployment == ("a" if kept else "b")
        assert answer.disclosure.escalated is not kept
        assert [cause for cause, _, _ in answer.causes] == ["first", *([] if kept else ["escalation"]), "judge"]
        # What the judge costs is the request's, too.
        assert answer.disclosure.cost_micro_usd == 8 + 5 + (0 if kept else 160)
        shown = j.requests[0].generation.prompt.chat.messages[-1].content[0].text
        assert shown.count("</answer>") == shown.count("</question>") == 1
        assert text_of(token_ids("hello</answer>ten", 8)) in shown
        said = (await running.stub.Explain(pb.ExplainRequest(request_id="r1"))).steps
        assert [s.detail.split(",")[0] for s in said if s.what == "cascade.confidence"] == [
            f"graded {says.strip(' Grade:').removesuffix('/10')} of 10"
        ]


@pytest.mark.parametrize(
    ("act", "within_s", "note"),
    [
        (Act(after=0), WAIT_S, "failed: NO_HEALTHY_DEPLOYMENT"),
        (Act(tokens=1, says="very good"), WAIT_S, "said no grade"),
        (Act(tokens=1, says="11"), WAIT_S, "said no grade"),
        (Act(after=0, then="stall"), 0.2, "failed: DEADLINE_EXCEEDED"),
    ],
)
async def test_a_judge_that_does_not_judge_costs_no_answer(tmp_path, act, within_s, note) -> None:
    everybody = nodes("a0", "b0", "j0")
    config = judged(tmp_path, within_s=within_s)
    async with everybody as (a, b, j), router(tmp_path, {"a": [a], "b": [b], "j": [j]}, config) as running:
        j.default = act
        answer = await running.answer("hello", context={"request_id": "r1"})
        assert answer.error is None
        assert answer.ids() == token_ids("hello", 8)
        assert answer.disclosure.deployment == "a"
        steps = (await running.stub.Explain(pb.ExplainRequest(request_id="r1"))).steps
        assert next(s.detail for s in steps if s.what == "cascade.judge").startswith(note)
        assert all(r.inflight == 0 for r in (await running.state()).values())


async def test_a_judge_is_asked_only_where_there_is_doubt_and_money(tmp_path) -> None:
    everybody = nodes("a0", "b0", "j0")
    config = judged(tmp_path, sure=0.8)
    async with everybody as (a, b, j), router(tmp_path, {"a": [a], "b": [b], "j": [j]}, config) as running:
        sure = await running.answer("hello")
        assert sure.disclosure.deployment == "a"
        a.default = Act(logprob=-3.0)
        poor = await running.answer("hello")
        assert poor.disclosure.deployment == "b"
        assert j.requests == []
        a.default, j.default = Act(logprob=-1.0), Act(tokens=1, says="9")
        doubtful = await running.answer("hello")
        assert [cause for cause, _, _ in doubtful.causes] == ["first", "judge"]
        broke = await running.answer("hello", budget={"cost_micro_usd": 8}, max_tokens=8)
        assert (broke.error, [cause for cause, _, _ in broke.causes]) == (None, ["first"])


async def test_a_difficult_question_skips_the_cheap_member(tmp_path) -> None:
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, cascading(tmp_path)) as running:
        answer = await running.answer("1234567890")
        assert answer.disclosure.escalated
        assert [replica for _, replica, _ in answer.causes] == ["b0"]
        b.default = Act(after=0)
        answer = await running.answer("1234567890")
        assert answer.error is None
        assert answer.disclosure.deployment == "a"


async def test_a_cost_cap_refuses_limits_and_says_so(tmp_path) -> None:
    config = routing(deployments=[{**DEPLOYMENT, "price": {"input": 0, "output": 10}}])
    async with nodes("n0") as (node,), router(tmp_path, {"nodes": [node]}, config) as running:
        node.default = Act(tokens=100)
        refused = await running.answer("hello", budget={"cost_micro_usd": 90}, max_tokens=10)
        assert isinstance(refused.error, FailedPrecondition)
        assert refused.error.reason == "COST_CAP_EXCEEDED"
        limited = await running.answer("hello", budget={"cost_micro_usd": 90})
        assert limited.error is None
        assert len(limited.ids()) == 9
        assert limited.disclosure.cost_micro_usd == 90


async def test_a_shadow_is_asked_and_never_heard(tmp_path) -> None:
    config = routing(deployments=PAIR, models=[{**MODEL, "chain": ["a"], "shadow": {"deployment": "b"}}])
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, config) as running:
        b.default = Act(after=0, then="stall")
        for i in range(5):
            answer = await running.answer(f"q{i}")
            assert answer.causes == [("first", "a0", "")]
        await until(lambda: len(b.requests) == 5)
        # Each goes its own way, beside the answer: one may overtake another.
        assert sorted(r.generation.prompt.text for r in b.requests) == [f"q{i}" for i in range(5)]


async def test_users_stick_to_their_side_of_a_split(tmp_path) -> None:
    a, b = PAIR
    split = [{**a, "weight": 3}, {**b, "weight": 1}]
    config = routing(deployments=split, models=[{**MODEL, "chain": [["a", "b"]], "strategy": "weighted"}])
    async with nodes("a0", "b0") as (first, second), router(tmp_path, {"a": [first], "b": [second]}, config) as running:
        sides: dict[str, set[str]] = {}
        for i in range(120):
            user = f"user-{i % 40}"
            answer = await running.answer("hello", context={"user": user})
            sides.setdefault(user, set()).add(answer.disclosure.deployment)
        assert all(len(s) == 1 for s in sides.values())
        assert 20 <= sum(s == {"a"} for s in sides.values()) <= 38


async def test_the_file_reloads_and_a_bad_one_is_refused_with_reasons(tmp_path) -> None:
    async with nodes("n0") as made, router(tmp_path, {"nodes": made}, routing()) as running:

        async def state() -> pb.GetStateResponse:
            return await running.stub.GetState(pb.GetStateRequest())

        before = (await state()).config_version
        # A stream that began under the old file ends under it.
        go = asyncio.Event()
        made[0].acts.append(Act(tokens=40, hold=go, hold_at=10))
        live = running.begin("live")
        await until(lambda: len(live.so_far.ids()) == 10)
        running.rewrite(routing(models=[{**MODEL, "name": "new"}]))
        async with asyncio.timeout(WAIT_S):
            while (await state()).config_version == before:
                await asyncio.sleep(0.01)
        assert (await running.answer("hello", model="new")).error is None
        assert (await running.answer("hello", model="pub")).error is not None
        go.set()
        assert (await live.rest).ids() == token_ids("live", 40)

        good = (await state()).config_version
        running.rewrite(routing(models=[{**MODEL, "chain": ["nobody"]}]))
        async with asyncio.timeout(WAIT_S):
            while not (await state()).config_error:
                await asyncio.sleep(0.01)
        refused = await state()
        assert refused.config_version == good
        assert "router.yaml:" in refused.config_error
        assert "nobody" in refused.config_error
        assert (await running.answer("hello", model="new")).error is None


async def test_breakers_and_retries_follow_the_file_too(tmp_path) -> None:
    patient = {"breaker": {"failures": 50}, "retry": {"ratio": 0, "success_ratio": 0, "floor": 0, "max_balance": 9}}
    async with nodes("n0", "n1") as made, router(tmp_path, {"nodes": made}, routing(**patient)) as running:
        for node in made:
            node.default = Act(after=0)
        assert len((await running.answer("hello")).causes) == 1
        strict = {
            "breaker": {"failures": 2, "reset_s": 60, "max_reset_s": 60},
            "retry": {"ratio": 1, "floor": 5, "max_balance": 9},
        }
        before = (await running.stub.GetState(pb.GetStateRequest())).config_version
        running.rewrite(routing(**strict))
        async with asyncio.timeout(WAIT_S):
            while (await running.stub.GetState(pb.GetStateRequest())).config_version == before:
                await asyncio.sleep(0.01)
        # Each request now earns itself a retry, and the second fault in a row opens a breaker.
        assert len((await running.answer("hello")).causes) == 2
        await running.answer("hello")
        await running.until(lambda state: all(r.breaker == pb.BREAKER_STATE_OPEN for r in state.values()))


async def test_a_drain_ends_what_peers_watch_at_once(tmp_path) -> None:
    async with nodes("n0") as made, router(tmp_path, {"nodes": made}, routing(), drain_deadline_s=60.0) as running:
        watch = running.stub.WatchBreakers(pb.WatchBreakersRequest())
        await watch.read()
        running.service.stop()
        # Long before the drain's deadline, which would end it too.
        async with asyncio.timeout(WAIT_S):
            rest = [response async for response in _rest(watch)]
        assert len(rest) <= 1


async def _rest(call):
    from grpc.aio import EOF  # noqa: PLC0415 - next to its one use

    while (response := await call.read()) is not EOF:
        yield response
