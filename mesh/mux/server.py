"""The answering side: calls that come over a stream are handled as if each had come by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias

import grpc
import structlog
from google.rpc import code_pb2

from headrace.mesh.v1 import mux_pb2 as pb
from headrace.mesh.v1 import mux_pb2_grpc
from mesh.channel import MAX_MESSAGE_BYTES
from mesh.mux.protocol import Metadata, ServerEnd, headers_of, metadata_of, parts

_log = structlog.get_logger()
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Find: TypeAlias = Callable[[str], Awaitable["_Handler | None"]]
SERVICE: Final = "/headrace.mesh.v1.Mux/"
# More open calls on one stream are refused; callers stop earlier by themselves.
_MAX_OPEN: Final = 4096


class MuxServicer(mux_pb2_grpc.MuxServicer):
    """headrace.mesh.v1.Mux for the methods that `find` knows. One that it does not know is UNIMPLEMENTED."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._links: set[_Link] = set()
        self._draining = False
        self._closed = False

    async def Carry(  # type: ignore[override]  # it writes to the context, which the stubs do not foresee
        self, request_iterator: AsyncIterator[pb.CarryRequest], context: Any
    ) -> None:
        """See the contract."""
        await context.write(pb.CarryResponse())
        link = _Link(self._find, context)
        self._links.add(link)
        if self._draining:
            link.drain()
        if self._closed:
            link.finish()
        protocol = [asyncio.create_task(end) for end in (link.read(), link.write())]
        try:
            done, _ = await asyncio.wait(protocol, return_when=asyncio.FIRST_COMPLETED)
            for error in filter(None, (end.exception() for end in done)):
                _log.info("mux.stream_lost", error=str(error) or type(error).__name__)
        finally:
            self._links.discard(link)
            link.cancel_all()
            for end in protocol:
                end.cancel()
            await asyncio.gather(*protocol, return_exceptions=True)

    def drain(self) -> None:
        """Send new calls elsewhere; those under way go on."""
        self._draining = True
        for link in self._links:
            link.drain()

    def close(self) -> None:
        """End every stream, once what was said on it is sent: a call that is over has yet to reach its caller."""
        self._closed = True
        for link in self._links:
            link.finish()


class _Link:
    """One stream and the calls on it."""

    def __init__(self, find: Find, context: Any) -> None:
        self._find = find
        self._context = context
        self._answering = ServerEnd()
        self._waiting = asyncio.Event()
        self._finishing = False
        # Batches that were taken to be sent; the event tells who waits for the next one.
        self._batches = 0
        self._taken = asyncio.Event()
        self._calls: dict[int, _Call] = {}

    async def read(self) -> None:
        """Take in what comes until the caller is gone."""
        while (request := await self._context.read()) is not grpc.aio.EOF:
            for ask in request.asks:
                self._begin(ask)
            for number in self._answering.credited(request.credits):
                self._calls[number].credited.set()
            for number in request.cancels:
                self._answering.forget(number)
                if number in self._calls:
                    self._calls.pop(number).cancel()

    async def write(self) -> None:
        """Send what waits until the caller is gone, or all is sent and no more calls are to come."""
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            while (response := self._answering.batch()) is not None:
                self._batches += 1
                self._taken.set()
                self._taken.clear()
                await self._context.write(response)
            if self._finishing and not self._calls:
                return

    def finish(self) -> None:
        """No more calls are to come."""
        self._finishing = True
        self._waiting.set()

    def drain(self) -> None:
        """Send new calls elsewhere."""
        self._answering.drain()
        self._waiting.set()

    def cancel_all(self) -> None:
        """The caller is gone."""
        calls, self._calls = list(self._calls.values()), {}
        for call in calls:
            self._answering.forget(call.number)
            call.cancel()

    async def send(self, call: _Call, message: bytes) -> None:
        """Queue a message; waits while the caller does not read.

        Also until the call's last message was taken, as with gRPC: who makes answers gathers meanwhile, and others come
        to their turn. A first message, mostly the only one, does not wait, and its end goes with it.
        """
        if call.queued == self._batches:
            await self._taken.wait()
        call.queued = self._batches
        for part, more in parts(message):
            while not self._answering.send(call.number, part, more=more):
                call.credited.clear()
                await call.credited.wait()
            self._waiting.set()

    def accept(self, call: _Call) -> None:
        """Let the caller know that its call is being handled."""
        self._answering.accept(call.number)
        self._waiting.set()

    def expire(self, call: _Call) -> None:
        """The call's time is over: its caller knows that too, and takes nothing more of it."""
        self._answering.forget(call.number)
        self._calls.pop(call.number, None)
        call.cancel()

    def end(self, call: _Call, end: pb.End) -> None:
        """The call is over; what comes after its end is nobody's."""
        self._calls.pop(call.number, None)
        self._answering.end(call.number, end)
        self._waiting.set()

    def _begin(self, ask: pb.Ask) -> None:
        if not self._answering.opened(ask.id):
            _log.error("mux.number_taken", id=ask.id)
            return
        if len(self._calls) >= _MAX_OPEN:
            self._answering.end(
                ask.id, pb.End(code=code_pb2.RESOURCE_EXHAUSTED, details="too many calls on one stream")
            )
            self._waiting.set()
            return
        call = self._calls[ask.id] = _Call(ask, self)
        call.task = asyncio.create_task(call.run(self._find))


class _Call:
    """One call. It is also the context that its handler gets: as much of gRPC's as handlers of the mesh use."""

    def __init__(self, ask: pb.Ask, link: _Link) -> None:
        self.number = ask.id
        self.credited = asyncio.Event()
        # When its last message was queued, in batches.
        self.queued = -1
        self.task: asyncio.Task[None] | None = None
        self._ask = ask
        self._link = link
        self._metadata = metadata_of(ask.headers)
        self._trailers: Metadata = ()
        self._end = pb.End()
        self._over: list[Callable[[Any], object]] = []
        loop = asyncio.get_running_loop()
        self._due = loop.time() + ask.timeout_micros / 1e6
        self._timer = loop.call_at(self._due, self._expire)

    async def run(self, find: Find) -> None:
        """Handle the call to its end."""
        try:
            await self._handle(await find(self._ask.method))
        except grpc.aio.AbortError:
            # What the status is was said to `abort`.
            pass
        except asyncio.CancelledError:
            self._end = pb.End(code=code_pb2.CANCELLED, details="the call was cancelled")
        except Exception as error:
            # A handler's own errors were mapped before: this is a message that cannot be read or written.
            _log.error("mux.defect", method=self._ask.method, exc_info=error)
            self._end = pb.End(code=code_pb2.INTERNAL, details="the call's messages cannot be read or written")
        finally:
            self._timer.cancel()
            self._call_back()
            self._end.trailers.extend(headers_of(self._trailers))
            self._link.end(self, self._end)

    async def _handle(self, handler: Any) -> None:
        if handler is None or handler.request_streaming:
            self._end = pb.End(code=code_pb2.UNIMPLEMENTED, details=f"{self._ask.method}: not offered here")
            return
        request = handler.request_deserializer(self._ask.body)
        if not handler.response_streaming:
            await self._send(handler.response_serializer(await handler.unary_unary(request, self)))
            return
        async with contextlib.aclosing(handler.unary_stream(request, self)) as responses:
            async for response in responses:
                await self._send(handler.response_serializer(response))

    async def _send(self, message: bytes) -> None:
        if len(message) > MAX_MESSAGE_BYTES:
            await self.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"a message of {len(message)} bytes is too large")
        await self._link.send(self, message)

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        self._timer.cancel()
        self._call_back()
        if self.task is not None:
            self.task.cancel()

    def invocation_metadata(self) -> Metadata:
        """What the caller sent beside the request."""
        return self._metadata

    def time_remaining(self) -> float:
        """Seconds left."""
        return max(0.0, self._due - asyncio.get_running_loop().time())

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call `callback` when the call is over, or at once when the caller goes away."""
        self._over.append(callback)

    async def send_initial_metadata(self, _metadata: object) -> None:
        """Let the caller know that the call is being handled. What the headers would say is not sent."""
        self._link.accept(self)

    def set_trailing_metadata(self, trailers: Iterable[tuple[str, str | bytes]]) -> None:
        """What to send with the status."""
        self._trailers = tuple(trailers)

    def trailing_metadata(self) -> Metadata:
        """What is sent with the status."""
        return self._trailers

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Iterable[tuple[str, str | bytes]] = ()
    ) -> None:
        """End the call with an error. Raises AbortError."""
        self._end = pb.End(code=code.value[0], details=details)
        self._trailers = tuple(trailing_metadata) or self._trailers
        raise grpc.aio.AbortError

    def _expire(self) -> None:
        self._link.expire(self)

    def _call_back(self) -> None:
        callbacks, self._over = self._over, []
        for callback in callbacks:
            callback(self)
