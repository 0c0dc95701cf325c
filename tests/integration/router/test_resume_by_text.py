"""Answers that another model goes on with from their text: over real gRPC, between deployments that share no tokens."""

import pytest

from headrace.common.v1 import generation_pb2 as common
from headrace.router.v1 import router_pb2 as pb
from mesh.errors import InvalidArgument, Outcome, StreamCut
from tests.fakes.inference import Act, nodes, text_of, token_ids
from tests.integration.router.harness import MODEL, router, routing

ABLE = ["chat", "completion", "tools", "json_schema", "logprobs"]


def chain(*names: str, **model: object) -> dict[str, object]:
    made = [
        {"name": n, "service": n, "model": "m", "capabilities": ABLE, "price": {"input": 1, "output": 2}} for n in names
    ]
    return routing(deployments=made, models=[{**MODEL, "chain": list(names), "resume": "text"} | model])


# The fake's words are numbers: `12 345 `. After three of them the first node is cut.
CUT = Act(tokens=20, after=3)
BEGUN = text_of(token_ids("hello", 3))


async def test_another_model_goes_on_and_both_are_disclosed_and_paid_for(tmp_path) -> None:
    async with (
        nodes("a0") as (a,),
        nodes("b0", revision="other", continues=True) as (b,),
        router(tmp_path, {"a": [a], "b": [b]}, chain("a", "b")) as running,
    ):
        a.default, b.default = CUT, Act(goes_on=("and", " so", " on"))
        answer = await running.answer("hello", max_tokens=40)
        assert answer.error is None
        assert answer.text == f"{BEGUN}and so on"
        assert answer.finishes == [common.FINISH_REASON_STOP]
        assert answer.disclosure.spliced
        first, second = answer.disclosure.attempts
        assert (first.deployment, first.outcome) == ("a", common.OUTCOME_MIDSTREAM_FAULT)
        assert (second.deployment, second.why) == ("b", common.ATTEMPT_CAUSE_RESUME)
        # It was asked to go on from the text alone, for as many tokens as were left.
        (emitted,) = b.requests[0].generation.resume
        assert (emitted.text, list(emitted.token_ids)) == (BEGUN, [])
        assert 20 < b.requests[0].generation.sampling.max_tokens < 40
        # Both read the prompt and each wrote its part.
        usage = answer.messages[-1].summary.usage
        assert usage.completion_tokens == 3 + 3
        assert usage.prompt_tokens == first.usage.prompt_tokens + second.usage.prompt_tokens > 13
        assert answer.disclosure.cost_micro_usd == usage.prompt_tokens + 2 * usage.completion_tokens
        # Another model's token ids mean nothing behind the first one's.
        assert answer.ids() == token_ids("hello", 3)


@pytest.mark.parametrize(
    "goes_on",
    [("two", " three", " so"), ("one t", "wo three", " so"), (" so",), ("so",), ("three", " so")],
    ids=["last words again", "all again", "as it should be", "a lost space", "last word again"],
)
async def test_seams_do_not_show(tmp_path, goes_on) -> None:
    async with (
        nodes("a0") as (a,),
        nodes("b0", revision="other", continues=True) as (b,),
        router(tmp_path, {"a": [a], "b": [b]}, chain("a", "b")) as running,
    ):
        a.default, b.default = Act(tokens=20, after=1, says="one two three"), Act(goes_on=goes_on)
        answer = await running.answer("is there a three in this?")
        assert (answer.error, answer.text) == (None, "one two three so")


async def test_tokens_go_before_text(tmp_path) -> None:
    """A replica of the same model and revision continues exactly; a text is for when there is none."""
    async with (
        nodes("a0", "a1") as made,
        nodes("b0", revision="other", continues=True) as (b,),
        router(tmp_path, {"a": made, "b": [b]}, chain("a", "b")) as running,
    ):
        for node in made:
            node.default = CUT
        b.default = Act(goes_on=("and", " on"))
        answer = await running.answer("hello")
        assert [x.deployment for x in answer.disclosure.attempts] == ["a", "a", "b"]
        assert (answer.error, answer.text) == (None, text_of(token_ids("hello", 6)) + "and on")
        resumed = next(r.generation.resume[0] for node in made for r in node.requests if r.generation.resume)
        assert list(resumed.token_ids) == token_ids("hello", 3)


async def test_who_refuses_to_go_on_does_not_hide_the_first_error(tmp_path) -> None:
    refusal = InvalidArgument("this model takes no prefix", field="generation.resume")
    async with (
        nodes("a0") as (a,),
        nodes("b0", "c0", revision="other", continues=True) as (b, c),
        router(tmp_path, {"a": [a], "b": [b], "c": [c]}, chain("a", "b", "c")) as running,
    ):
        a.default, b.default = CUT, Act(after=0, error=refusal)
        c.default = Act(goes_on=("and", " on"))
        answer = await running.answer("hello")
        # The next one is asked instead.
        assert (answer.error, answer.text) == (None, f"{BEGUN}and on")
        c.default = Act(after=0, error=refusal)
        answer = await running.answer("hello")
        assert isinstance(answer.error, StreamCut)
        assert answer.error.outcome is Outcome.MIDSTREAM_FAULT
        assert answer.error.metadata["cause"] == "SCRIPTED"
        assert answer.text == BEGUN
        assert {r.breaker for k, r in (await running.state()).items() if k[0] in "bc"} == {pb.BREAKER_STATE_CLOSED}


async def test_a_continuation_that_is_cut_is_continued(tmp_path) -> None:
    async with (
        nodes("a0") as (a,),
        nodes("b0", "c0", revision="other", continues=True) as (b, c),
        router(tmp_path, {"a": [a], "b": [b], "c": [c]}, chain("a", "b", "c")) as running,
    ):
        a.default = CUT
        b.default, c.default = Act(goes_on=("and", " so", " on"), after=2), Act(goes_on=(" forth",))
        answer = await running.answer("hello")
        assert (answer.error, answer.text) == (None, f"{BEGUN}and so forth")
        assert c.requests[0].generation.resume[0].text == f"{BEGUN}and so"
        assert answer.messages[-1].summary.usage.completion_tokens == 3 + 2 + 1


NEVER = {
    "switched off": ({"resume": "tokens"}, CUT, {}),
    "all switched off": ({"resume": False}, CUT, {}),
    "a schema": ({"structured": "stream"}, CUT, {"json_schema": "{}"}),
    "several choices": ({}, CUT, {"n": 2}),
    "a refusal": ({}, Act(tokens=20, after=3, refuses=True), {}),
}


@pytest.mark.parametrize("case", NEVER)
async def test_otherwise_the_typed_error_stays(tmp_path, case) -> None:
    model, act, asked = NEVER[case]
    async with (
        nodes("a0") as (a,),
        nodes("b0", revision="other", continues=True) as (b,),
        router(tmp_path, {"a": [a], "b": [b]}, chain("a", "b", **model)) as running,
    ):
        a.default, b.default = act, Act(goes_on=("and", " so"))
        answer = await running.answer("hello", **asked)
        assert isinstance(answer.error, StreamCut)
        assert not answer.finishes
        assert b.requests == []


async def test_half_a_tool_call_is_never_continued_but_the_text_before_it_is(tmp_path) -> None:
    async with (
        nodes("a0") as (a,),
        nodes("b0", revision="other", continues=True) as (b,),
        router(tmp_path, {"a": [a], "b": [b]}, chain("a", "b")) as running,
    ):
        a.default, b.default = Act(tokens=20, tool_from=3, after=10), Act(goes_on=("and", " so"))
        answer = await running.answer("hello", chat=True, tools=["f"])
        assert (answer.error, answer.text) == (None, f"{BEGUN}and so")
        assert not any(d.tool_calls for m in answer.messages for d in m.deltas)


async def test_nobody_goes_on_who_cannot(tmp_path) -> None:
    async with (
        nodes("a0") as (a,),
        nodes("b0", revision="other") as (b,),
        router(tmp_path, {"a": [a], "b": [b]}, chain("a", "b")) as running,
    ):
        a.default = CUT
        answer = await running.answer("hello")
        assert isinstance(answer.error, StreamCut)
        assert not any(r.generation.resume and not r.generation.resume[0].token_ids for r in b.requests)
