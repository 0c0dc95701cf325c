"""headrace.router.v1 over gRPC: messages in, domain calls, messages out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import grpc

from headrace.router.v1 import router_pb2, router_pb2_grpc
from mesh import telemetry
from mesh.clock import Clock, Deadline
from mesh.contract_limits import SAMPLING
from mesh.errors import InvalidArgument, NotFound
from mesh.resilience import LoadShed
from router.core.breaker_feed import BreakerFeed
from router.core.reporting import models_of, state_of
from router.core.router import Router

DISCLOSURE_KEY: Final = "headrace-disclosure-bin"
# Time kept back from the caller's deadline, so that the error which says what happened still arrives.
_MARGIN_S: Final = 0.1

_Context = grpc.aio.ServicerContext[Any, Any]


class RouterServicer(router_pb2_grpc.RouterServicer):
    """Answers for one router."""

    def __init__(
        self, router: Router, breaker_feed: BreakerFeed, shed: LoadShed, *, clock: Clock, default_deadline_s: float
    ) -> None:
        self._router = router
        self._breaker_feed = breaker_feed
        self._shed = shed
        self._clock = clock
        self._default_deadline_s = default_deadline_s

    async def Generate(
        self, request: router_pb2.GenerateRequest, context: _Context
    ) -> AsyncIterator[router_pb2.GenerateResponse]:
        """See the contract."""
        check(request)
        left = context.time_remaining()
        deadline = Deadline(self._default_deadline_s if left is None else left - min(_MARGIN_S, left / 4), self._clock)
        with self._shed.enter():
            session = self._router.session(request, deadline)
            try:
                async with aclosing(session.stream()) as messages:
                    async for message in messages:
                        yield message
            finally:
                session.close()
                disclosure = session.disclosure()
                self._router.recent.settle(request.context.request_id, disclosure)
                context.set_trailing_metadata(((DISCLOSURE_KEY, disclosure.SerializeToString()),))

    async def ListModels(
        self, request: router_pb2.ListModelsRequest, context: _Context
    ) -> router_pb2.ListModelsResponse:
        """See the contract."""
        return models_of(self._router)

    async def GetState(self, request: router_pb2.GetStateRequest, context: _Context) -> router_pb2.GetStateResponse:
        """See the contract."""
        return state_of(self._router, self._clock)

    async def WatchBreakers(
        self, request: router_pb2.WatchBreakersRequest, context: _Context
    ) -> AsyncIterator[router_pb2.WatchBreakersResponse]:
        """See the contract."""
        async for response in self._breaker_feed.watch(self._router.fleet.endpoints):
            yield response

    async def Explain(self, request: router_pb2.ExplainRequest, context: _Context) -> router_pb2.ExplainResponse:
        """See the contract."""
        found = self._router.recent.find(request.request_id)
        if found is None:
            raise NotFound("this router remembers no such request", field="request_id", reason="REQUEST_NOT_FOUND")
        steps, disclosure = found
        response = router_pb2.ExplainResponse(disclosure=disclosure)
        for step in steps:
            entry = response.steps.add(what=step.what, detail=step.detail)
            entry.at.FromNanoseconds(int(step.at * 1e9))
        return response


def check(request: router_pb2.GenerateRequest) -> None:
    """Fill in the request's id where a caller left it out; raises InvalidArgument for what cannot be routed."""
    if not request.generation.model:
        raise InvalidArgument("a model is needed", field="generation.model")
    if not request.generation.prompt.WhichOneof("prompt"):
        raise InvalidArgument("a prompt is needed", field="generation.prompt")
    if not request.context.tenant:
        raise InvalidArgument("a tenant is needed", field="context.tenant")
    if not SAMPLING["n"].holds(request.generation.sampling.n):
        raise InvalidArgument(f"generation.sampling.n: {SAMPLING['n']}", field="generation.sampling.n")
    if request.generation.resume:
        raise InvalidArgument("answers are resumed by the router itself", field="generation.resume")
    if not request.context.request_id:
        scope = telemetry.current_scope()
        request.context.request_id = scope.request_id if scope else ""
