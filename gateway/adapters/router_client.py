"""The router over gRPC. Implements gateway.core.ports.Router."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final

import grpc
import structlog

from headrace.common.v1.generation_pb2 import Disclosure
from headrace.router.v1 import router_pb2, router_pb2_grpc
from mesh import telemetry
from mesh.client import ServiceClient
from mesh.errors import DeadlineExceeded, MeshError, Unavailable, from_rpc_error
from mesh.resilience import BreakerOpen

_log = structlog.get_logger()
DISCLOSURE_KEY: Final = "headrace-disclosure-bin"
_DETAILS_KEY: Final = "grpc-status-details-bin"

_Stream = grpc.aio.UnaryStreamCall[router_pb2.GenerateRequest, router_pb2.GenerateResponse]


class RouterClient:
    """Calls the routers."""

    def __init__(self, routers: ServiceClient) -> None:
        self._routers = routers

    def generate(self, request: router_pb2.GenerateRequest, timeout_s: float) -> GenerateCall:
        """See gateway.core.ports.Router."""
        metadata = telemetry.outgoing_metadata(request.context.tenant)
        stub: router_pb2_grpc.RouterAsyncStub = self._routers.next().stub(router_pb2_grpc.RouterStub)
        return GenerateCall(stub.Generate(request, timeout=timeout_s, metadata=metadata))

    async def list_models(self, timeout_s: float) -> Sequence[router_pb2.Model]:
        """See gateway.core.ports.Router."""
        try:
            answer = await self._routers.call(router_pb2_grpc.RouterStub, _list_models, timeout_s, safe=True)
        except BreakerOpen as error:
            # It names a replica, which means nothing to who asked.
            raise _unavailable() from error
        return answer.models


class GenerateCall:
    """Implements gateway.core.ports.RouterCall."""

    def __init__(self, call: _Stream) -> None:
        self._call = call
        self.disclosure: Disclosure | None = None

    async def messages(self) -> AsyncGenerator[router_pb2.GenerateResponse, None]:
        """See gateway.core.ports.RouterCall."""
        try:
            async for message in self._call:
                if message.HasField("disclosure"):
                    self.disclosure = message.disclosure
                yield message
        except grpc.aio.AioRpcError as error:
            self._disclosed_by(error)
            raise _known(error) from error
        finally:
            self._call.cancel()

    def _disclosed_by(self, error: grpc.aio.AioRpcError) -> None:
        for key, value in error.trailing_metadata() or ():
            if key == DISCLOSURE_KEY and isinstance(value, bytes):
                self.disclosure = Disclosure.FromString(value)


async def _list_models(stub: router_pb2_grpc.RouterAsyncStub, timeout_s: float) -> router_pb2.ListModelsResponse:
    try:
        return await stub.ListModels(router_pb2.ListModelsRequest(), timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        raise _known(error) from error


def _known(error: grpc.aio.AioRpcError) -> MeshError:
    if any(key == _DETAILS_KEY for key, _ in error.trailing_metadata() or ()):
        return from_rpc_error(error)
    # gRPC's own words: they name addresses, and mean nothing to who asked.
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("The request's time was over before its answer was.")
    if code is grpc.StatusCode.CANCELLED:
        # Not by this side: the router gave the call up, for example because its drain deadline has passed.
        return Unavailable("The router gave the call up; try again.", reason="PEER_CANCELLED")
    _log.warning("router.call_failed", code=code.name, details=error.details())
    return _unavailable()


def _unavailable() -> Unavailable:
    return Unavailable("No router answers now; try again.", reason="ROUTER_UNAVAILABLE")
