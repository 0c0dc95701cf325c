"""The layers in their order. Streams take them one by one; unary calls go through `call`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from mesh.clock import SYSTEM, Clock, Deadline
from mesh.errors import DeadlineExceeded, MeshError, Outcome, from_rpc_error
from mesh.resilience.breaker import BreakerPolicy
from mesh.resilience.budget import RetryBudget, RetryPolicy, pauses
from mesh.resilience.endpoint import Endpoint, Endpoints
from mesh.resilience.shed import LoadShed

T = TypeVar("T")
_RETRYABLE = (Outcome.FAULT, Outcome.BACKPRESSURE)


class Stack:
    """Everything that stands between a process and the targets it calls."""

    def __init__(
        self, endpoints: Endpoints, *, shed: LoadShed, retry: RetryPolicy | None = None, clock: Clock = SYSTEM
    ) -> None:
        self.endpoints = endpoints
        self.shed = shed
        self.retry = retry or RetryPolicy()
        self.budget = RetryBudget(self.retry)
        self._clock = clock

    def use(self, breaker: BreakerPolicy, retry: RetryPolicy) -> None:
        """Put other policies into force, for what comes from now on."""
        self.retry = retry
        self.endpoints.use(breaker)
        self.budget.use(retry)

    async def call(
        self, target: str, work: Callable[[float], Awaitable[T]], deadline: Deadline, *, retry_safe: bool
    ) -> T:
        """Await `work(timeout_s)` under every layer; the work makes one unary call and nothing else.

        A call that is not retry-safe is made once. Raises MeshError: what the last try ended with, or the refusal of
        a layer. Cancelling cancels the call and counts nowhere.
        """
        with self.shed.enter():
            endpoint = self.endpoints.of(target)
            self.budget.on_request()
            waits = pauses(self.retry)
            while True:
                try:
                    return await self._once(endpoint, work, deadline)
                except MeshError as error:
                    pause = self._pause(error, next(waits, None) if retry_safe else None, deadline)
                    if pause is None:
                        raise
                    await self._clock.sleep(pause)

    def _pause(self, error: MeshError, pause: float | None, deadline: Deadline) -> float | None:
        """How long to wait before trying again; None: do not."""
        if pause is None or error.outcome not in _RETRYABLE:
            return None
        wait = max(pause, error.retry_after_s or 0.0)
        if wait >= deadline.left() or not self.budget.take():
            return None
        return wait

    async def _once(self, endpoint: Endpoint, work: Callable[[float], Awaitable[T]], deadline: Deadline) -> T:
        if deadline.passed():
            raise DeadlineExceeded("no time was left for the call")
        with endpoint.admit() as permit:
            try:
                async with asyncio.timeout(deadline.left()):
                    result = await work(deadline.left())
            except TimeoutError as error:
                late = DeadlineExceeded("the call did not end in time")
                endpoint.settle(permit, late)
                raise late from error
            except grpc.aio.AioRpcError as error:
                known = from_rpc_error(error)
                endpoint.settle(permit, known)
                raise known from error
            except MeshError as error:
                endpoint.settle(permit, error)
                raise
            endpoint.settle(permit, None)
            self.budget.on_outcome(Outcome.OK)
            return result
