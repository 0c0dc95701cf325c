"""The gRPC server that every service starts: health, reflection, and one interceptor around each handler."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from headrace.mesh.v1 import mux_pb2_grpc
from mesh import telemetry
from mesh.channel import MAX_MESSAGE_BYTES
from mesh.errors import Cancelled, Internal, MeshError, Outcome, to_status
from mesh.health import Readiness
from mesh.mux.server import SERVICE as _MUX
from mesh.mux.server import MuxServicer
from mesh.tasks import TaskSet

_log = structlog.get_logger()
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]]
# Health and reflection are asked every second by everyone; their lines would drown the rest. The calls that a stream
# of mesh.mux carries are seen one by one; the stream itself is none of them.
_QUIET = ("/grpc.health.", "/grpc.reflection.", _MUX)
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Two processes on one port would split the calls between them unseen.
    ("grpc.so_reuseport", 0),
    # Clients ping idle-looking streams every 10 s; see mesh/channel.py.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)


class AddressTaken(OSError):
    """A process cannot listen where it was told to. `setting` is the end of the variable that says where."""

    def __init__(self, address: str, setting: str, reason: object) -> None:
        super().__init__(f"cannot listen on {address}: {reason}")
        self.setting = setting


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Around each handler: the scope, the one error mapping, the summary line, the metric, and the count in flight."""

    def __init__(self) -> None:
        self.inflight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = TaskSet()
        # Handlers as they are given out, by method; those of unknown methods are not kept.
        self._wrapped: dict[str, _Handler] = {}
        self._search: Callable[[str], Awaitable[_Handler | None]] | None = None

    async def wait_idle(self) -> None:
        """Return when no call is under way."""
        await self._idle.wait()

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        """See grpc.aio.ServerInterceptor."""
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is not None:
            return known
        handler = await continuation(handler_call_details)
        # Whichever call it came with, it finds the handler of any.
        make_details: Any = type(handler_call_details)
        self._search = lambda other: self.intercept_service(continuation, make_details(other, ()))
        if handler is None or method.startswith(_QUIET):
            return handler
        make, inner = _unpack(handler)
        wrap = self._stream if handler.response_streaming else self._unary
        wrapped = self._wrapped[method] = make(
            wrap(method, inner),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return wrapped

    async def find(self, method: str) -> _Handler | None:
        """What a call of this method would be handled by, for calls that another call carries."""
        known = self._wrapped.get(method)
        if known is not None or self._search is None:
            return known
        return await self._search(method)

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
            served = _ServedStream(inner(request, context), partial(self._leave, method, started))
            # gRPC does not come back to a stream that is cancelled while one of its messages is being written.
            over: Any = partial(self._over, method, served)
            context.add_done_callback(over)
            try:
                async for response in served.responses:
                    yield response
            except BaseException as caught:
                served.error = caught
                await self._fail(caught, context)
            finally:
                await served.close()

        return call

    def _over(self, method: str, served: _ServedStream, _context: object) -> None:
        if not served.closed:
            self._closing.start(f"closing {method}", served.abandon())

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


class _ServedStream:
    """A handler's messages, which are closed once, by whoever comes first: the stream's end, or its caller's going."""

    __slots__ = ("_leave", "_scope", "closed", "error", "responses")

    def __init__(self, responses: Any, leave: Callable[[BaseException | None], None]) -> None:
        self.responses = responses
        self.error: BaseException | None = None
        self.closed = False
        self._leave = leave
        self._scope = telemetry.current_scope()

    async def close(self) -> None:
        """Let the handler clean up where it stands, and count the call."""
        if self.closed:
            return
        self.closed = True
        try:
            await self.responses.aclose()
        finally:
            self._leave(self.error)

    async def abandon(self) -> None:
        """The caller is gone. A handler that is running has its task cancelled by gRPC, and closes itself."""
        if self.responses.ag_running or self.closed:
            return
        if self._scope is not None:
            telemetry.enter_scope(self._scope.request_id, self._scope.traceparent)
        self.error = self.error or asyncio.CancelledError()
        await self.close()


class Server:
    """A gRPC server on one address. Add servicers to `.grpc`, then start."""

    def __init__(self, address: str, readiness: Readiness, service_names: tuple[str, ...]) -> None:
        self.calls = CallInterceptor()
        self.grpc = grpc.aio.server(interceptors=(self.calls,), options=_OPTIONS)
        self.mux = MuxServicer(self.calls.find)
        mux_pb2_grpc.add_MuxServicer_to_server(self.mux, self.grpc)
        self._address = address
        self.port = 0
        health_pb2_grpc.add_HealthServicer_to_server(readiness.servicer, self.grpc)
        names = (*service_names, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self.grpc)

    async def start(self) -> int:
        """Bind and serve; returns the port, which matters when the address asked for port 0.

        Raises AddressTaken.
        """
        try:
            self.port = self.grpc.add_insecure_port(self._address)
        except RuntimeError as error:
            raise AddressTaken(self._address, "LISTEN", error) from error
        await self.grpc.start()
        return self.port

    def drain(self) -> None:
        """Tell callers that new calls belong elsewhere. Those that still come are served."""
        self.mux.drain()

    async def finish(self, deadline_s: float) -> int:
        """Let calls in flight end, for at most `deadline_s`, then cancel the rest. Returns how many were cancelled."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.calls.wait_idle(), deadline_s)
        left = self.calls.inflight
        if not left:
            self.mux.close()
        await self.grpc.stop(grace=0 if left else 1.0)
        return left
