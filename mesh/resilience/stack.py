"""The layers in their order: deadline, load-shed, retry budget, breaker, call.

Unary calls go through `ResilienceStack.call`, which is how `mesh.client` makes each of them. A stream takes the same
parts one by one, in the same order, because it is refused, paid for and judged at other moments than it is opened and
read: router/core/attempts.py is that order for generations. See docs/adr/0066.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
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


class ResilienceStack:
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
        self,
        target: str | Callable[[], str],
        work: Callable[[float], Awaitable[T]],
        deadline: Deadline,
        *,
        retry_safe: bool,
    ) -> T:
        """Await `work(timeout_s)` under every layer; the work makes one unary call to `target` and nothing else.

        A `target` that is a function is asked before each attempt. A call that is not retry-safe is made once. Raises
        MeshError: what the last attempt ended with, or the refusal of a layer. Cancelling cancels the call and counts
        nowhere.
        """
        choose = target if callable(target) else lambda: target
        # From the outside in; each layer is given the one within it.
        return await self._shed_load(  # has a place among the calls under way, or is refused at once
            partial(
                self._retry,  # again after a pause, as far as the deadline and the retry budget go
                partial(
                    self._guard,  # not where the breaker is open or the target asked to be left alone
                    partial(_in_time, work, deadline),  # the call itself, which the deadline ends
                ),
                choose,
                deadline,
                retry_safe,
            )
        )

    async def _shed_load(self, within: Callable[[], Awaitable[T]]) -> T:
        with self.shed.enter():
            return await within()

    async def _retry(
        self, within: Callable[[Endpoint], Awaitable[T]], choose: Callable[[], str], deadline: Deadline, safe: bool
    ) -> T:
        self.budget.on_request()
        waits = pauses(self.retry)
        endpoint = self.endpoints.of(choose())
        while True:
            try:
                result = await within(endpoint)
            except MeshError as error:
                pause = next(waits, None)
                if not safe or pause is None or error.outcome not in _RETRYABLE:
                    raise
                # What the last target asked for does not bind the next one.
                endpoint = self.endpoints.of(choose())
                pause = max(pause, endpoint.wait_s())
                if pause >= deadline.left() or not self.budget.take():
                    raise
                await self._clock.sleep(pause)
            else:
                self.budget.on_outcome(Outcome.OK)
                return result

    async def _guard(self, within: Callable[[], Awaitable[T]], endpoint: Endpoint) -> T:
        with endpoint.admit() as permit:
            try:
                result = await within()
            except _NothingSent as error:
                raise error.why from None
            except MeshError as error:
                endpoint.settle(permit, error)
                raise
            endpoint.settle(permit, None)
            return result


class _NothingSent(Exception):
    """The call was not made; whatever the reason, it speaks for nobody."""

    def __init__(self, why: MeshError) -> None:
        super().__init__()
        self.why = why


async def _in_time(work: Callable[[float], Awaitable[T]], deadline: Deadline) -> T:
    if deadline.passed():
        raise _NothingSent(DeadlineExceeded("no time was left for the call"))
    try:
        async with asyncio.timeout(deadline.left()):
            return await work(deadline.left())
    except TimeoutError as error:
        raise DeadlineExceeded("the call did not end in time") from error
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
