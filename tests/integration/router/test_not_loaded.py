"""Deployments whose node does not serve what the routing file says of them: the operator's mistake."""

import pytest
from prometheus_client import REGISTRY

from headrace.router.v1 import router_pb2 as pb
from mesh.errors import NotFound, Outcome, Unavailable
from tests.fakes.inference import Act, nodes, text_of, token_ids
from tests.integration.router.harness import router, routing

NO_ADAPTER = NotFound("no adapter 'tone' is loaded", reason="ADAPTER_NOT_FOUND", field="generation.adapter")
NO_MODEL = NotFound("this node serves 'other'", reason="MODEL_NOT_FOUND", field="generation.model")
TONED = routing(
    deployments=[
        {"name": "toned", "service": "a", "model": "m", "adapter": "tone"},
        {"name": "plain", "service": "b", "model": "m"},
    ],
    models=[{"name": "pub", "chain": ["toned", "plain"]}, {"name": "only", "chain": ["toned"], "attempts": 2}],
)


def failed_attempts(deployment: str) -> float:
    labels = {"deployment": deployment, "cause": "first", "outcome": Outcome.FAULT.name}
    return REGISTRY.get_sample_value("headrace_router_attempts_total", labels) or 0.0


@pytest.mark.parametrize("error", [NO_ADAPTER, NO_MODEL])
async def test_the_next_deployment_answers_unseen_and_the_first_is_explained_and_counted(tmp_path, error) -> None:
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, TONED) as running:
        a.acts.append(Act(after=0, error=error))
        counted = failed_attempts("toned")
        answer = await running.answer("hello", context={"tenant": "t1", "request_id": "r1"})
        assert answer.error is None
        assert answer.text == text_of(token_ids("hello", 8))
        assert answer.causes == [("first", "a0", "DEPLOYMENT_NOT_LOADED"), ("failover", "b0", "")]
        assert failed_attempts("toned") == counted + 1
        steps = (await running.stub.Explain(pb.ExplainRequest(request_id="r1"))).steps
        assert any(s.what == "attempt.failed" and "DEPLOYMENT_NOT_LOADED" in s.detail for s in steps)


async def test_when_no_deployment_has_it_the_caller_hears_which_and_that_it_is_not_their_doing(tmp_path) -> None:
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, TONED) as running:
        a.default = Act(after=0, error=NO_ADAPTER)
        answer = await running.answer("hello", model="only")
        assert isinstance(answer.error, Unavailable)
        assert answer.error.http_status == 503
        assert answer.error.reason == "NO_HEALTHY_DEPLOYMENT"
        assert answer.error.metadata["last_reason"] == "DEPLOYMENT_NOT_LOADED"
        assert "deployment 'toned'" in answer.error.message
        assert {reason for _, _, reason in answer.causes} == {"DEPLOYMENT_NOT_LOADED"}
        assert not b.requests


async def test_one_that_never_has_it_is_left_out_by_its_breaker_while_its_node_serves_others(tmp_path) -> None:
    config = routing(
        deployments=[
            {"name": "toned", "service": "a", "model": "m", "adapter": "tone"},
            {"name": "same-node", "service": "a", "model": "m"},
        ],
        models=[{"name": "pub", "chain": ["toned", "same-node"]}],
    )
    async with nodes("a0") as (a,), router(tmp_path, {"a": [a]}, config) as running:
        a.acts.extend(Act(after=0, error=NO_ADAPTER) if i % 2 == 0 else Act() for i in range(10))
        for i in range(5):
            assert (await running.answer(f"q{i}")).error is None
        sixth = await running.answer("q5")
        assert [a.deployment for a in sixth.disclosure.attempts] == ["same-node"]


async def test_an_adapter_that_the_caller_named_is_the_callers_own_mistake(tmp_path) -> None:
    config = routing(
        deployments=[{"name": name, "service": name, "model": "m"} for name in ("a", "b")],
        models=[{"name": "pub", "chain": ["a", "b"]}],
    )
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, config) as running:
        a.default = b.default = Act(after=0, error=NO_ADAPTER)
        answer = await running.answer("hello")
        assert isinstance(answer.error, NotFound)
        assert (answer.error.reason, answer.error.field) == ("ADAPTER_NOT_FOUND", "generation.adapter")
        assert len(answer.disclosure.attempts) == 1
