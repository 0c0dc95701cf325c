"""Chains whose members differ: what one cannot do goes on to the next, what costs less is asked first, and accounts."""

import pytest

from headrace.common.v1 import generation_pb2 as common
from headrace.router.v1 import router_pb2 as pb
from mesh.errors import FailedPrecondition, InvalidArgument, MeshError, ResourceExhausted, Unavailable, Unimplemented
from tests.fakes.inference import Act, nodes, text_of, token_ids
from tests.integration.router.harness import MODEL, router, routing

ABLE = ["chat", "completion", "tools", "json_schema"]
CHAIN = {**MODEL, "chain": ["a", "b"]}


def chain(price_a: float = 0.0, price_b: float = 0.0, **model: object) -> dict[str, object]:
    prices = {"a": price_a, "b": price_b}
    made = [
        {"name": n, "service": n, "model": "m", "capabilities": ABLE, "price": {"output": p}} for n, p in prices.items()
    ]
    return routing(deployments=made, models=[CHAIN | model])


TOO_LONG = InvalidArgument("too long", field="generation.prompt", reason="CONTEXT_TOO_LONG")
REFUSALS = [
    TOO_LONG,
    FailedPrecondition("this model calls no tools", field="generation.prompt.chat.messages[1].tool_calls"),
    FailedPrecondition("no such thing", field="generation.sampling.seed", reason="UNSUPPORTED_BY_PROVIDER"),
    InvalidArgument("lookahead", field="generation.sampling.response_format", reason="UNSUPPORTED_CONSTRAINT"),
    Unimplemented("not offered here"),
]


def refuses(error: MeshError) -> Act:
    return Act(after=0, error=error)


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: error.reason)
async def test_what_a_member_cannot_do_goes_on_along_the_chain(tmp_path, error) -> None:
    async with nodes("a0", "a1", "b0") as (a0, a1, b), router(tmp_path, {"a": [a0, a1], "b": [b]}, chain()) as running:
        a0.default = a1.default = refuses(error)
        answer = await running.answer("hello")
        assert answer.error is None
        assert answer.text == text_of(token_ids("hello", 8))
        assert [(a.deployment, a.outcome) for a in answer.disclosure.attempts] == [
            ("a", common.OUTCOME_CALLER_FAULT),
            ("b", common.OUTCOME_OK),
        ]
        # Nobody is left: what the last one said reaches the caller, as it was said, and nobody was asked twice.
        b.default = refuses(error)
        before = len(a0.requests) + len(a1.requests) + len(b.requests)
        answer = await running.answer("hello")
        assert type(answer.error) is type(error)
        assert (answer.error.reason, answer.error.field) == (error.reason, error.field)
        assert len(a0.requests) + len(a1.requests) + len(b.requests) == before + 2
        # That moves no breaker, however often it comes.
        for _ in range(6):
            await running.answer("hello")
        assert {r.breaker for r in (await running.state()).values()} == {pb.BREAKER_STATE_CLOSED}


async def test_going_on_is_no_retry(tmp_path) -> None:
    """The budget of retries is for failures: a chain whose first member is too small for a prompt leaves it alone."""
    config = chain() | {"retry": {"ratio": 0, "success_ratio": 0, "floor": 0, "max_balance": 0}}
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, config) as running:
        a.default = refuses(TOO_LONG)
        assert [(await running.answer("hello")).error for _ in range(5)] == [None] * 5


async def test_a_refusal_is_not_the_last_word_while_another_may_be_well_again(tmp_path) -> None:
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, chain()) as running:
        a.default, b.default = refuses(TOO_LONG), Act(after=0)
        answer = await running.answer("hello")
        assert isinstance(answer.error, Unavailable)
        assert len(a.requests) == 1
        assert len(b.requests) > 1


async def test_the_callers_own_mistakes_stay_theirs(tmp_path) -> None:
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, chain(fallback="sorry")) as running:
        for reason in ("INVALID_ARGUMENT", "CONTENT_FILTERED"):
            a.default = refuses(InvalidArgument("no", field="generation.prompt", reason=reason))
            answer = await running.answer("hello")
            assert isinstance(answer.error, InvalidArgument)
            assert answer.error.reason == reason
        assert b.requests == []


PASSING = Unavailable("HTTP 500", reason="PROVIDER_FAILED")


async def test_a_single_500_is_tried_once_more_before_one_that_costs_more(tmp_path) -> None:
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, chain(1, 5)) as running:
        a.acts.append(refuses(PASSING))
        answer = await running.answer("hello")
        assert [x.deployment for x in answer.disclosure.attempts] == ["a", "a"]
        assert answer.error is None
        a.default = refuses(PASSING)
        answer = await running.answer("hello")
        assert answer.error is None
        assert [x.deployment for x in answer.disclosure.attempts] == ["a", "a", "b"]
        # What does not pass by itself is not tried again there.
        a.default = refuses(Unavailable("HTTP 401", reason="PROVIDER_REFUSED_ACCOUNT"))
        answer = await running.answer("hello")
        assert [x.deployment for x in answer.disclosure.attempts] == ["a", "b"]


async def test_one_that_costs_no_more_is_asked_at_once(tmp_path) -> None:
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, chain(1, 1)) as running:
        a.default = refuses(PASSING)
        answer = await running.answer("hello")
        assert [x.deployment for x in answer.disclosure.attempts] == ["a", "b"]


async def test_a_short_retry_after_is_waited_for_where_nobody_else_can_answer(tmp_path) -> None:
    busy = ResourceExhausted("busy", reason="PROVIDER_RATE_LIMITED", retry_after_s=0.2)
    config = chain(chain=["a"], max_wait_s=5)
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, config) as running:
        a.acts.append(refuses(busy))
        answer = await running.answer("hello")
        assert answer.error is None
        outcomes = [x.outcome for x in answer.disclosure.attempts]
        assert outcomes == [common.OUTCOME_BACKPRESSURE, common.OUTCOME_OK]
        # Once: who is still busy then is believed.
        a.default = refuses(busy)
        answer = await running.answer("hello")
        assert isinstance(answer.error, ResourceExhausted)
        assert len(answer.disclosure.attempts) == 2


async def test_a_retry_after_is_not_waited_for_beside_somebody_idle_or_when_it_is_long(tmp_path) -> None:
    busy = ResourceExhausted("busy", reason="PROVIDER_RATE_LIMITED", retry_after_s=30.0)
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, chain(max_wait_s=5)) as running:
        a.default = refuses(busy)
        answer = await running.answer("hello")
        assert [x.deployment for x in answer.disclosure.attempts] == ["a", "b"]
        b.default = refuses(busy)
        answer = await running.answer("hello")
        assert isinstance(answer.error, ResourceExhausted)
        assert answer.error.retry_after_s > 5


async def test_a_providers_retry_after_holds_for_its_account(tmp_path) -> None:
    """Not for the node's replica alone: the others would be refused as well, a moment later."""
    limited = {"reason": "PROVIDER_RATE_LIMITED", "retry_after_s": 50.0, "metadata": {"provider_status": "429"}}
    async with (
        nodes("a0", "a1", account="acct-1") as shared,
        nodes("b0", account="acct-2") as (other,),
        router(tmp_path, {"a": shared, "b": [other]}, chain()) as running,
    ):
        for node in shared:
            node.default = refuses(ResourceExhausted("limited", **limited))
        answer = await running.answer("hello")
        assert (answer.error, [x.deployment for x in answer.disclosure.attempts]) == (None, ["a", "b"])
        assert sum(len(node.requests) for node in shared) == 1
        await running.answer("again")
        assert sum(len(node.requests) for node in shared) == 1


async def test_a_nodes_own_full_queue_holds_for_it_alone(tmp_path) -> None:
    async with nodes("a0", "a1", account="acct-1") as made, router(tmp_path, {"a": made, "b": []}, chain()) as running:
        for node in made:
            node.default = refuses(ResourceExhausted("full", reason="QUEUE_FULL", retry_after_s=50.0))
        answer = await running.answer("hello")
        assert isinstance(answer.error, ResourceExhausted)
        assert [len(node.requests) for node in made] == [1, 1]


FORMS = {
    "text": ({}, {"sorry", '{"sorry": true}'}),
    "schema": ({"json_schema": "{}"}, set()),
    "json": ({"json_object": True}, {'{"sorry": true}'}),
    "tools": ({"chat": True, "tools": ["f"]}, {"sorry", '{"sorry": true}'}),
    "required tool": ({"chat": True, "tools": ["f"], "tool_choice": 3}, set()),
}


@pytest.mark.parametrize("form", FORMS)
async def test_the_static_answer_is_used_only_where_it_has_the_form_asked_for(tmp_path, form) -> None:
    asked, fitting = FORMS[form]
    for said in ("sorry", '{"sorry": true}'):
        async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, chain(fallback=said)) as running:
            a.default = b.default = Act(after=0)
            answer = await running.answer("hello", **asked)
            if said in fitting:
                assert (answer.error, answer.text) == (None, said)
                assert answer.disclosure.fallback
            else:
                assert isinstance(answer.error, Unavailable)
                assert answer.messages == []


async def test_a_prompt_that_fits_nobody_is_refused_before_a_node_sees_it(tmp_path) -> None:
    async with (
        nodes("a0", context=1024) as (a,),
        nodes("b0", context=4096) as (b,),
        router(tmp_path, {"a": [a], "b": [b]}, chain()) as running,
    ):
        long = "words and words of a prompt " * 10_000
        answer = await running.answer(long, chat=True)
        assert isinstance(answer.error, InvalidArgument)
        assert answer.error.reason == "CONTEXT_TOO_LONG"
        assert answer.error.field == "generation.prompt.chat.messages"
        assert "maximum context length is 4096 tokens" in answer.error.message
        assert a.requests == b.requests == []
        # One that only the second has room for is not carried to the first.
        answer = await running.answer("words and words of a prompt " * 400, chat=True)
        assert [x.deployment for x in answer.disclosure.attempts] == ["b"]
