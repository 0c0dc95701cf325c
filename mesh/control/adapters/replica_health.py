"""A look at each replica: the standard gRPC health service, watched and asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.channel import open_channel
from mesh.clock import Clock
from mesh.control.core.health_state import HealthState
from mesh.control.core.model import HealthVerdict
from mesh.stack import Stack
from mesh.tasks import KeyedTasks

# The open stream tells of a drain and of a death at once. A process that was stopped does neither, so it is asked as
# well: it is out after at most the sum of the two.
CHECK_EVERY_S: Final = 0.4
CHECK_TIMEOUT_S: Final = 1.2
# An answer that is so much later than its deadline was held up here, not there.
_STALLED_S: Final = 0.5
_RECONNECT_S: Final = 0.1
_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
Report = Callable[[str, HealthVerdict], None]


class ReplicaHealth:
    """Looks at the replicas of a stack and reports each change of verdict."""

    def __init__(self, report: Report, clock: Clock) -> None:
        self._report = report
        self._clock = clock
        self._probes: KeyedTasks[tuple[str, str]] = KeyedTasks(self._probe)

    def follow(self, stack: Stack) -> None:
        """See app.Endpoints."""
        self._probes.keep({(replica.id, replica.address) for replica in stack.each_replica()})

    async def run(self) -> None:
        """See app.Endpoints."""
        await self._probes.run()

    async def _probe(self, key: tuple[str, str]) -> None:
        replica, address = key
        health_state = HealthState(lambda verdict: self._report(replica, verdict))
        async with open_channel(address) as channel, asyncio.TaskGroup() as group:
            stub = health_pb2_grpc.HealthStub(channel)
            group.create_task(self._watch(stub, health_state))
            group.create_task(self._check(stub, health_state))

    async def _watch(self, stub: health_pb2_grpc.HealthStub, health_state: HealthState) -> None:
        while True:
            # No deadline: the stream stays open, and the checks beside it notice a peer that says nothing.
            stream = stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True)
            with contextlib.suppress(grpc.aio.AioRpcError):
                async for response in stream:
                    health_state.told(serving=response.status == _SERVING)
            health_state.lost()
            await self._clock.sleep(_RECONNECT_S)

    async def _check(self, stub: health_pb2_grpc.HealthStub, health_state: HealthState) -> None:
        while True:
            started = self._clock.monotonic()
            try:
                response = await stub.Check(health_pb2.HealthCheckRequest(), timeout=CHECK_TIMEOUT_S)
                health_state.answered(serving=response.status == _SERVING)
            except grpc.aio.AioRpcError as error:
                late = self._clock.monotonic() - started > CHECK_TIMEOUT_S + _STALLED_S
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    health_state.silent(f"health check failed: {error.code().name}")
                elif not late:
                    health_state.silent(f"no answer within {CHECK_TIMEOUT_S:g} s")
                else:
                    continue
            await self._clock.sleep(CHECK_EVERY_S)
