"""The gRPC server that every service starts: health, reflection, and one interceptor around each handler."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from mesh import telemetry
from mesh.channel import MAX_MESSAGE_BYTES
from mesh.errors import Cancelled, Internal, MeshError, Outcome, to_status
from mesh.health import Readiness

_log = structlog.get_logger()
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
# Health and reflection are asked every second by everyone; their lines would drown the rest.
_QUIET = ("/grpc.health.", "/grpc.reflection.")
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Two processes on one port would split the calls between them unseen.
    ("grpc.so_reuseport", 0),
    # Clients ping idle-looking streams every 10 s; see mesh/channel.py.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Around each handler: the scope, the one error mapping, the summary line, the metric, and the count in flight."""

    def __init__(self) -> None:
        self.inflight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def wait_idle(self) -> None:
        """Return when no call is under way."""
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_QUIET):
            return handler
        make, inner = _unpack(handler)
        wrap = self._stream if handler.response_streaming else self._unary
        return make(
            wrap(method, inner),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, method: str, inner: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = self._enter(context)
            error: BaseException | None = None
            try:
                return await inner(request, context)
            except BaseException as caught:
                error = caught
                await self._fail(caught, context)
            finally:
                self._leave(method, started, error)

        return call

    def _stream(
        self, method: str, inner: Callable[[Any, Any], AsyncIterator[Any]]
    ) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            started = self._enter(context)
            error: BaseException | None = None
            try:
                async for response in inner(request, context):
                    yield response
            except BaseException as caught:
                error = caught
                await self._fail(caught, context)
            finally:
                self._leave(method, started, error)

        return call

    def _enter(self, context: grpc.aio.ServicerContext[Any, Any]) -> float:
        metadata = context.invocation_metadata()
        telemetry.enter_scope(
            telemetry.metadata_value(metadata, telemetry.REQUEST_ID_KEY),
            telemetry.metadata_value(metadata, telemetry.TRACE_KEY),
        )
        self.inflight += 1
        self._idle.clear()
        return time.perf_counter()

    def _leave(self, method: str, started: float, error: BaseException | None) -> None:
        self.inflight -= 1
        if self.inflight == 0:
            self._idle.set()
        seconds = time.perf_counter() - started
        if error is None:
            record = telemetry.RpcRecord(method, "OK", Outcome.OK, seconds)
        else:
            known = _known(error)
            record = telemetry.RpcRecord(method, known.code.name, known.outcome, seconds, known.reason)
        telemetry.record_rpc(record, _log)

    async def _fail(self, error: BaseException, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if isinstance(error, asyncio.CancelledError | GeneratorExit | grpc.aio.AbortError):
            raise error
        if not isinstance(error, MeshError):
            scope = telemetry.current_scope()
            _log.error("rpc.defect", request_id=scope.request_id if scope else "", exc_info=error)
        status = rpc_status.to_status(to_status(_known(error)))
        # What the handler wanted to say at the end is said with the error as well.
        trailing = (*(context.trailing_metadata() or ()), *status.trailing_metadata)
        await context.abort(status.code, status.details, trailing)


def _known(error: BaseException) -> MeshError:
    """The error itself, or what callers may know of it."""
    if isinstance(error, MeshError):
        return error
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return Cancelled("the caller went away")
    scope = telemetry.current_scope()
    return Internal(f"internal error; the log has it under request id {scope.request_id if scope else 'unknown'}")


def _unpack(handler: Any) -> tuple[Callable[..., _Handler], Callable[..., Any]]:
    if handler.request_streaming:
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler, handler.stream_stream
        return grpc.stream_unary_rpc_method_handler, handler.stream_unary
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    return grpc.unary_unary_rpc_method_handler, handler.unary_unary


class Server:
    """A gRPC server on one address. Add servicers to `.grpc`, then start."""

    def __init__(self, address: str, readiness: Readiness, service_names: tuple[str, ...]) -> None:
        self.calls = CallInterceptor()
        self.grpc = grpc.aio.server(interceptors=(self.calls,), options=_OPTIONS)
        self._address = address
        self.port = 0
        health_pb2_grpc.add_HealthServicer_to_server(readiness.servicer, self.grpc)
        names = (*service_names, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self.grpc)

    async def start(self) -> int:
        """Bind and serve; returns the port, which matters when the address asked for port 0.

        Raises OSError when the address is taken.
        """
        try:
            self.port = self.grpc.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address}: {error}") from error
        await self.grpc.start()
        return self.port

    async def finish(self, deadline_s: float) -> int:
        """Let calls in flight end, for at most `deadline_s`, then cancel the rest. Returns how many were cancelled."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.calls.wait_idle(), deadline_s)
        left = self.calls.inflight
        await self.grpc.stop(grace=0 if left else 1.0)
        return left
