"""headrace.gateway.v1 over gRPC: the same admission and the same way through the house as over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from gateway.adapters.metrics import Meter
from gateway.core.admission import Admission
from gateway.core.generation_checks import check_generation
from gateway.core.keys import Caller
from gateway.core.model_catalog import ModelCatalog
from gateway.core.ports import Router
from gateway.core.request_pipeline import AdmittedRequest, RequestPipeline
from gateway.core.request_usage import RequestUsage
from headrace.gateway.v1 import gateway_pb2 as pb
from headrace.gateway.v1 import gateway_pb2_grpc
from headrace.router.v1 import router_pb2
from mesh import telemetry

_Context = grpc.aio.ServicerContext[Any, Any]
_MODELS_TIMEOUT_S = 5.0


class GatewayServicer(gateway_pb2_grpc.GatewayServicer):
    """Answers for one gateway."""

    def __init__(
        self,
        admission: Admission,
        request_pipeline: RequestPipeline,
        router: Router,
        meter: Meter,
        catalog: ModelCatalog,
    ) -> None:
        self._catalog = catalog
        self._admission = admission
        self._pipeline = request_pipeline
        self._router = router
        self._meter = meter

    async def Generate(self, request: pb.GenerateRequest, context: _Context) -> AsyncIterator[pb.GenerateResponse]:
        """See the contract."""
        caller = self._authenticate(context)
        check_generation(request.generation)
        self._catalog.check(request.generation.model, (request.generation,))
        scope = telemetry.current_scope()
        assert scope is not None  # the server's interceptor has set it
        deadline = self._admission.deadline(context.time_remaining())
        admitted = AdmittedRequest(caller, scope.request_id, request.user, (request.generation,), deadline)
        usage_totals, request_id = RequestUsage(), scope.request_id
        with self._admission.shed.enter():
            try:
                async with aclosing(self._pipeline.answer(admitted, usage_totals)) as chunks:
                    async for chunk in chunks:
                        yield _response(chunk.message, request_id)
                        request_id = ""
            finally:
                self._meter.generation(caller.tenant, usage_totals)

    async def ListModels(self, request: pb.ListModelsRequest, context: _Context) -> pb.ListModelsResponse:
        """See the contract."""
        self._authenticate(context)
        response = pb.ListModelsResponse()
        for model in await self._router.list_models(_MODELS_TIMEOUT_S):
            made = response.models.add(name=model.name, owned_by=model.owned_by, context_length=model.context_length)
            made.created.CopyFrom(model.created)
        return response

    def _authenticate(self, context: _Context) -> Caller:
        metadata = context.invocation_metadata()
        return self._admission.authenticate(
            telemetry.metadata_value(metadata, "authorization"), telemetry.metadata_value(metadata, "x-api-key")
        )


def _response(message: router_pb2.GenerateResponse, request_id: str) -> pb.GenerateResponse:
    response = pb.GenerateResponse(deltas=message.deltas, request_id=request_id)
    if message.HasField("summary"):
        response.summary.CopyFrom(message.summary)
    if message.HasField("disclosure"):
        response.disclosure.CopyFrom(message.disclosure)
    return response
