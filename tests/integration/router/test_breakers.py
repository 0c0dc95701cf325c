"""Breakers over real gRPC: what opens them, how targets come back, and how routers agree."""

import asyncio
import contextlib
import time

import pytest

from headrace.router.v1 import router_pb2 as pb
from mesh.errors import InvalidArgument, ResourceExhausted, Unavailable
from tests.fakes.inference import Act, nodes
from tests.integration.router.harness import TIMERS, WAIT_S, Running, router, routing

OPEN, CLOSED = pb.BREAKER_STATE_OPEN, pb.BREAKER_STATE_CLOSED
RESET_S = 0.3
TWO = routing(
    deployments=[{"name": n, "service": n, "model": "m"} for n in ("a", "b")],
    models=[{"name": "pub", "chain": ["a", "b"]}],
    breaker={"failures": 3, "reset_s": RESET_S, "max_reset_s": 1.0},
)


@pytest.mark.parametrize(
    "error", [InvalidArgument("no"), ResourceExhausted("later", retry_after_s=0.05), ResourceExhausted("later")]
)
async def test_storms_of_4xx_and_429_never_open_a_breaker(tmp_path, error) -> None:
    async with nodes("n0") as (node,), router(tmp_path, {"nodes": [node]}, routing()) as running:
        node.default = Act(after=0, error=error)
        answers = await asyncio.gather(*(running.answer(f"q{i}", context={"user": "one"}) for i in range(200)))
        assert all(answer.error is not None for answer in answers)
        assert (await running.state())["d/n0"].breaker == CLOSED
        node.default = Act()
        async with asyncio.timeout(WAIT_S):
            while (await running.answer("after")).error is not None:
                await asyncio.sleep(0.02)


async def test_a_dead_deployment_leaves_the_path_and_comes_back(tmp_path) -> None:
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, TWO) as running:
        a.default = Act(after=0)
        for i in range(3):
            assert (await running.answer(f"q{i}")).disclosure.deployment == "b"
        assert (await running.state())["a/a0"].breaker == OPEN
        opened = time.monotonic()
        asked = len(a.requests)
        for i in range(20):
            assert [replica for _, replica, _ in (await running.answer(f"q{i}")).causes] == ["b0"]
        # Only probes go there now, one for each time it was due.
        assert len(a.requests) - asked <= (time.monotonic() - opened) / RESET_S + 1
        a.default = Act()
        async with asyncio.timeout(WAIT_S):
            while (await running.answer("again")).disclosure.deployment != "a":
                await asyncio.sleep(0.01)
        assert (await running.state())["a/a0"].breaker == CLOSED


@pytest.mark.parametrize("failures", [5, 1_000_000])
async def test_under_total_outage_the_router_amplifies_by_a_fifth_at_most(tmp_path, failures) -> None:
    config = routing(breaker={"failures": failures})
    async with nodes("n0", "n1") as made, router(tmp_path, {"nodes": made}, config) as running:
        for node in made:
            node.default = Act(after=0)
        for _ in range(10):
            answers = await asyncio.gather(*(running.answer(f"q{i}") for i in range(40)))
            assert all(isinstance(answer.error, Unavailable) for answer in answers)
        asked = sum(len(node.requests) for node in made)
        assert 10 <= asked <= 400 * 1.2


async def test_what_a_slow_queue_delays_opens_no_breaker(tmp_path) -> None:
    hasty = routing(timers=TIMERS | {"headers_s": 0.4, "first_token_s": 0.5})
    async with nodes("n0") as (node,), router(tmp_path, {"nodes": [node]}, hasty) as running:
        node.default = Act(after=0, then="stall")
        node.queued = 5
        node.load_changed()
        await running.until(lambda state: state["d/n0"].queued == 5)
        answers = await asyncio.gather(*(running.answer(f"q{i}", budget={"attempts": 1}) for i in range(8)))
        assert {a.error.metadata["last_reason"] for a in answers} <= {"HEADERS_TIMEOUT", "FIRST_TOKEN_TIMEOUT"}
        assert (await running.state())["d/n0"].breaker == CLOSED


async def test_probing_never_costs_the_caller_anything(tmp_path) -> None:
    async with nodes("a0", "b0") as (a, b), router(tmp_path, {"a": [a], "b": [b]}, TWO) as running:
        a.default = Act(after=0)
        for i in range(3):
            await running.answer(f"q{i}")
        assert (await running.state())["a/a0"].breaker == OPEN
        asked = len(a.requests)
        a.default = Act(after=0, then="stall")
        # The probe hangs for longer than all of these may take together: whoever waited for it would see it.
        async with asyncio.timeout(WAIT_S):
            while len(a.requests) == asked:
                assert (await running.answer("hello")).causes == [("first", "b0", "")]
            for _ in range(5):
                assert (await running.answer("hello")).causes == [("first", "b0", "")]
        assert a.active == 1


@contextlib.asynccontextmanager
async def three_routers(tmp_path, a, b):
    """Three routers that know of each other."""
    async with contextlib.AsyncExitStack() as stack:
        routers: list[Running] = []
        for i in range(3):
            folder = tmp_path / str(i)
            folder.mkdir()
            entered = router(folder, {"a": [a], "b": [b]}, TWO, replica=f"router-{i}")
            routers.append(await stack.enter_async_context(entered))
        addresses = {f"router-{i}": f"127.0.0.1:{r.service.server.port}" for i, r in enumerate(routers)}
        for each in routers:
            services = {"a": {a.name: a.address}, "b": {b.name: b.address}, "router": addresses}
            each.control.publish(services, kinds={"router": "router"})
        yield routers


async def agreed(routers: list[Running], state: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while {(await r.state())["a/a0"].breaker for r in routers} != {state}:
            await asyncio.sleep(0.002)


async def test_three_routers_agree_though_only_one_has_seen_it(tmp_path) -> None:
    async with nodes("a0", "b0") as (a, b), three_routers(tmp_path, a, b) as routers:
        a.default = Act(after=0, error=Unavailable("down"))
        for i in range(3):
            await routers[0].answer(f"q{i}")
        assert len(a.requests) == 3
        await agreed(routers, OPEN)
        assert len(a.requests) == 3
        assert (await routers[1].answer("hello")).causes == [("first", "b0", "")]

        a.default = Act()
        async with asyncio.timeout(WAIT_S):
            while (await routers[2].answer("again")).disclosure.deployment != "a":
                await asyncio.sleep(0.01)
        asked = len(a.requests)
        await agreed(routers, CLOSED)
        assert len(a.requests) == asked
