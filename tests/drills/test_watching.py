"""Who is on the path, as seen from the side: a scripted control plane and a scripted router over real gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc
import pytest

from headrace.control.v1 import control_pb2
from headrace.router.v1 import router_pb2 as pb
from headrace.router.v1 import router_pb2_grpc
from mesh.health import Readiness
from mesh.server import Server
from mesh.stack import Stack, parse
from ops.drills.watch import Watch, watching
from tests.fakes.control import FakeControl

_STACK = """\
name: watched
control: {control}
services:
  router: {{kind: router, ports: {{grpc: {router}}}}}
"""


class _Router(router_pb2_grpc.RouterServicer):
    """Answers with the state it was given."""

    def __init__(self) -> None:
        self.breaker = pb.BREAKER_STATE_CLOSED
        self.backpressure_s = 0
        self.silent = False
        self.asked = 0

    async def GetState(
        self, request: pb.GetStateRequest, context: grpc.aio.ServicerContext[pb.GetStateRequest, pb.GetStateResponse]
    ) -> pb.GetStateResponse:
        self.asked += 1
        if self.silent:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        deployment = pb.DeploymentState(name="d", service="nodes", breaker=pb.BREAKER_STATE_CLOSED)
        if self.backpressure_s:
            deployment.backpressure_left.FromSeconds(self.backpressure_s)
        deployment.replicas.add(id="nodes-0", breaker=self.breaker)
        return pb.GetStateResponse(deployments=[deployment])


@dataclass
class _Scene:
    control: FakeControl
    router: _Router
    stack: Stack

    def publish(self, healthy: bool) -> None:
        health = {} if healthy else {"nodes-0": control_pb2.HEALTH_UNHEALTHY}
        self.control.publish({"nodes": {"nodes-0": "127.0.0.1:1"}}, health=health)


@pytest.fixture
async def scene() -> AsyncIterator[_Scene]:
    control, router = FakeControl(), _Router()
    await control.start()
    server = Server("127.0.0.1:0", Readiness(), ())
    router_pb2_grpc.add_RouterServicer_to_server(router, server.grpc)
    stack = parse(_STACK.format(control=control.address, router=await server.start()))
    made = _Scene(control, router, stack)
    made.publish(healthy=True)
    yield made
    await server.grpc.stop(0)
    await control.stop()


async def _until(watch: Watch, holds: Callable[[Watch], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds(watch):
            await asyncio.sleep(0.01)


def _on(watch: Watch) -> bool:
    return bool(watch.changes) and watch.changes[-1][1]


def _off(watch: Watch) -> bool:
    return bool(watch.changes) and not watch.changes[-1][1]


@pytest.mark.parametrize("target", ["nodes-0", "nodes"])
async def test_leaving_the_snapshot_is_leaving_the_path(scene: _Scene, target: str) -> None:
    """For a replica as a target, and for its service; coming back is coming back."""
    async with watching(scene.stack, [target], time.monotonic) as watch:
        await _until(watch, _on)
        broken = time.monotonic()
        assert watch.ejected(broken) is None
        scene.publish(healthy=False)
        await _until(watch, _off)
        assert watch.recovered(broken) is None
        scene.publish(healthy=True)
        await _until(watch, _on)
        ejected, recovered = watch.ejected(broken), watch.recovered(broken)
    assert ejected is not None
    assert recovered is not None
    assert 0 < ejected < recovered
    assert [what for _, what in watch.events] == ["nodes-0 leaves the snapshot", "nodes-0 is back in the snapshot"]


async def test_an_open_breaker_is_off_the_path(scene: _Scene) -> None:
    """And it is remembered which deployment's opened, and that it closed; a probe is neither."""
    async with watching(scene.stack, ["nodes-0"], time.monotonic) as watch:
        await _until(watch, _on)
        scene.router.breaker = pb.BREAKER_STATE_OPEN
        await _until(watch, _off)
        scene.router.breaker = pb.BREAKER_STATE_HALF_OPEN
        asked = scene.router.asked
        await _until(watch, lambda _: scene.router.asked > asked + 2)
        assert not watch.closed
        scene.router.breaker = pb.BREAKER_STATE_CLOSED
        await _until(watch, _on)
    assert watch.opened == {"d"}
    assert watch.closed == {"d": 1}
    assert [what for _, what in watch.events] == ["the breaker of d opens", "the breaker of d closes"]


async def test_a_router_that_does_not_answer_has_not_changed_its_mind(scene: _Scene) -> None:
    """It may be busy: what it said last stands until it says something else."""
    async with watching(scene.stack, ["nodes-0"], time.monotonic) as watch:
        await _until(watch, _on)
        scene.router.breaker = pb.BREAKER_STATE_OPEN
        await _until(watch, _off)
        scene.router.silent, asked = True, scene.router.asked
        # What was heard is noted before it is asked again.
        await _until(watch, lambda _: scene.router.asked > asked + 2)
        assert not watch.changes[-1][1]
        scene.router.silent, scene.router.breaker = False, pb.BREAKER_STATE_CLOSED
        await _until(watch, _on)
    assert [on for _, on in watch.changes] == [True, False, True]


async def test_being_left_alone_for_a_while_is_off_the_path(scene: _Scene) -> None:
    """Back-pressure of the whole deployment; no breaker opens for it."""
    async with watching(scene.stack, ["nodes"], time.monotonic) as watch:
        await _until(watch, _on)
        scene.router.backpressure_s = 5
        await _until(watch, _off)
    assert not watch.opened


async def test_others_do_not_matter(scene: _Scene) -> None:
    """A drill judges its targets."""
    async with watching(scene.stack, ["elsewhere"], time.monotonic) as watch:
        scene.publish(healthy=False)
        await _until(watch, lambda seen: bool(seen.events))
        await _until(watch, _on)
    assert [on for _, on in watch.changes] == [True]
