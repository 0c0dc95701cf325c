"""The plain path: a model's public name to a node and back, what is disclosed, and what is refused."""

import asyncio

from headrace.common.v1 import generation_pb2 as common
from headrace.control.v1 import control_pb2
from headrace.router.v1 import router_pb2 as pb
from mesh.errors import InvalidArgument, NotFound
from tests.fakes.inference import Act, nodes, text_of, token_ids
from tests.integration.router.harness import WAIT_S, read, request_for, router, routing, until


async def test_a_request_is_answered_and_disclosed(tmp_path) -> None:
    price = {"input": 1.0, "output": 2.0}
    config = routing(deployments=[{"name": "d", "service": "nodes", "model": "m", "price": price}])
    async with nodes("n0") as made, router(tmp_path, {"nodes": made}, config) as running:
        answer = await running.answer("hello", context={"request_id": "req-1"})
        assert answer.error is None
        assert answer.text == text_of(token_ids("hello", 8))
        assert answer.finishes == [common.FINISH_REASON_STOP]
        assert made[0].requests[0].generation.model == "m"
        first, last = answer.messages[0], answer.messages[-1]
        assert first.disclosure.deployment == "d"
        assert last.summary.usage.completion_tokens == 8
        assert last.disclosure == answer.disclosure
        assert not any(m.HasField("disclosure") for m in answer.messages[1:-1])
        attempt = answer.disclosure.attempts[0]
        assert (attempt.cause, attempt.replica, attempt.revision) == ("first", "n0", "r1")
        assert attempt.outcome == common.OUTCOME_OK
        assert answer.disclosure.cost_micro_usd == 10 * 1 + 8 * 2
        explained = await running.stub.Explain(pb.ExplainRequest(request_id="req-1"))
        assert explained.disclosure == answer.disclosure
        assert [s.what for s in explained.steps] == ["pick", "attempt"]


async def test_an_adapter_is_asked_for_by_a_public_name_of_its_own(tmp_path) -> None:
    """Shadows ask for their own; what resumes an adapter's answer must have the same one."""
    config = routing(
        deployments=[
            {"name": "d", "service": "nodes", "model": "m"},
            {"name": "d-tone", "service": "nodes", "model": "m", "adapter": "tone"},
            {"name": "d-other", "service": "nodes", "model": "m", "adapter": "other"},
        ],
        models=[
            {"name": "pub", "chain": ["d"], "shadow": {"deployment": "d-other"}},
            {"name": "pub:tone", "chain": ["d-tone", "d", "d-other"], "tenants": ["t1"]},
        ],
    )
    async with nodes("n0") as made, router(tmp_path, {"nodes": made}, config) as running:
        assert (await running.answer("plain")).error is None
        await until(lambda: len(made[0].requests) == 2)
        assert sorted(r.generation.adapter for r in made[0].requests) == ["", "other"]
        assert (await running.answer("tuned", model="pub:tone")).error is None
        assert made[0].requests[-1].generation.adapter == "tone"
        made[0].acts.append(Act(after=3))
        spliced = await running.answer("tuned again", model="pub:tone")
        assert spliced.text == text_of(token_ids("tuned again", 8))
        assert [a.deployment for a in spliced.disclosure.attempts] == ["d-tone", "d-tone"]


async def test_models_and_state_are_shown(tmp_path) -> None:
    async with nodes("n0", "n1", capacity=5) as made, router(tmp_path, {"nodes": made}, routing()) as running:
        models = (await running.stub.ListModels(pb.ListModelsRequest())).models
        assert [(m.name, m.context_length, m.max_context_length) for m in models] == [("pub", 4096, 4096)]
        assert models[0].created.seconds == int(running.path.stat().st_mtime)
        assert list(models[0].first_models) == ["m"]
        state = await running.stub.GetState(pb.GetStateRequest())
        assert [d.name for d in state.deployments] == ["d"]
        assert {r.id for r in state.deployments[0].replicas} == {"n0", "n1"}
        assert state.config_version
        assert not state.config_error
        # What the nodes say of their load comes a moment after what they say of their models.
        await running.until(lambda state: {r.capacity for r in state.values()} == {5})


async def test_what_cannot_be_routed_is_refused_by_name(tmp_path) -> None:
    config = routing(models=[{"name": "pub", "chain": ["d"]}, {"name": "theirs", "chain": ["d"], "tenants": ["t2"]}])
    async with nodes("n0") as made, router(tmp_path, {"nodes": made}, config) as running:
        for name in ("nobody", "theirs"):
            answer = await running.answer(model=name)
            assert isinstance(answer.error, NotFound)
            assert answer.error.reason == "MODEL_NOT_FOUND"
        for broken, field in (
            (request_for("x", n=-1), "generation.sampling.n"),
            (request_for("x", context={"tenant": ""}), "context.tenant"),
            (request_for("x", model=""), "generation.model"),
            (pb.GenerateRequest(context={"tenant": "t"}, generation={"model": "pub"}), "generation.prompt"),
        ):
            answer = await read(running.stub.Generate(broken))
            assert isinstance(answer.error, InvalidArgument)
            assert answer.error.field == field
        assert made[0].requests == []


async def test_replicas_share_the_load_and_come_and_go_with_the_snapshot(tmp_path) -> None:
    async with nodes("n0", "n1", "n2") as made, router(tmp_path, {"nodes": made[:2]}, routing()) as running:
        # All are held until the last has come: who goes where depends on the load alone, not on how fast each answered.
        go = asyncio.Event()
        made[0].default = made[1].default = Act(hold=go)
        asked = []
        for i in range(8):
            asked.append(asyncio.create_task(running.answer(f"q{i}")))
            await until(lambda i=i: sum(node.active for node in made) > i)
        counts = [len(node.requests) for node in made]
        assert sum(counts[:2]) == 8
        # A conversation's own replica is preferred until it has 1.25 times the mean load.
        assert max(counts) <= 5
        go.set()
        assert [answer.error for answer in await asyncio.gather(*asked)] == [None] * 8
        running.control.publish({"nodes": {made[2].name: made[2].address}})
        await running.until(lambda state: set(state) == {"d/n2"} and bool(state["d/n2"].revision))
        assert (await running.answer("late")).causes == [("first", "n2", "")]


async def test_while_the_data_plane_breaks_a_nodes_calls_none_is_carried_past_it(tmp_path) -> None:
    async with nodes("n0") as (node,), router(tmp_path, {"nodes": [node]}, routing()) as running:

        async def until_carried(carried: bool) -> None:
            async with asyncio.timeout(WAIT_S):
                while not node.carried or node.carried[-1] is not carried:
                    assert (await running.answer()).error is None

        await until_carried(True)
        there = {"nodes": {"n0": node.address}}
        for fault in (control_pb2.Fault(service="nodes"), control_pb2.Fault(service="nodes", replica="n0")):
            running.control.publish(there, faults=[fault])
            await until_carried(False)
            running.control.publish(there)
            await until_carried(True)
