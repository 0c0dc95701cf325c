"""Calls on a stream, as their callers see them: like gRPC's own, as far as the mesh uses those."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Final

import grpc

from headrace.mesh.v1 import mux_pb2 as pb
from mesh.mux.protocol import CallerEnd, metadata_of

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class StreamCall:
    """One call whose answer is a stream of messages. Stands where `grpc.aio.UnaryStreamCall` does.

    `wake` is called when something waits to be sent. The deadline is kept here, whatever the server does about it.
    """

    __slots__ = ("_answer", "_asking", "_cancelled", "_deserialize", "_over", "_timer", "_waiters", "_wake")

    def __init__(
        self,
        asking: CallerEnd,
        ask: pb.Ask,
        timeout_s: float,
        deserialize: Callable[[bytes], Any],
        wake: Callable[[], None],
    ) -> None:
        self._asking = asking
        self._deserialize = deserialize
        self._wake = wake
        self._waiters: list[asyncio.Future[None]] = []
        self._over: list[Callable[[Any], object]] = []
        self._cancelled = False
        timeout_s = max(timeout_s, 0.0)
        ask.timeout_micros = int(timeout_s * 1e6)
        self._answer = asking.ask(ask, self._changed)
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._expire)
        wake()

    async def read(self) -> Any:
        """The next message, or `grpc.aio.EOF`. Raises AioRpcError; CancelledError after `cancel`, as gRPC does."""
        answer = self._answer
        while not self._cancelled:
            message = self._asking.take(answer)
            if message is not None:
                if self._asking.waits:
                    self._wake()
                return self._deserialize(message)
            if answer.end is not None:
                return _over(answer.end)
            try:
                await self._change()
            except asyncio.CancelledError:
                self.cancel()
                raise
        raise asyncio.CancelledError

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Empty. Returns when the server has the call in hand, which few say before they have an answer."""
        while not (self._answer.came or self._answer.end):
            await self._change()
        return grpc.aio.Metadata()

    async def code(self) -> grpc.StatusCode:
        """The status, once the call is over."""
        return _code(await self._ended())

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """The trailers, once the call is over."""
        return grpc.aio.Metadata(*metadata_of((await self._ended()).trailers))

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call `callback` with the call when its status is there, or at once where it is."""
        if self._answer.end is not None:
            callback(self)
        else:
            self._over.append(callback)

    def done(self) -> bool:
        """Whether the call is over."""
        return self._cancelled or self._answer.end is not None

    def cancel(self) -> bool:
        """End the call, at the server too. False where it was over already."""
        if self.done():
            return False
        self._cancelled = True
        self._drop(pb.End(code=_number(grpc.StatusCode.CANCELLED)))
        return True

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    async def _ended(self) -> pb.End:
        while self._answer.end is None:
            await self._change()
        return self._answer.end

    async def _change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _changed(self) -> None:
        if self._answer.end is not None:
            self._timer.cancel()
            callbacks, self._over = self._over, []
            for callback in callbacks:
                callback(self)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def _expire(self) -> None:
        self._drop(pb.End(code=_number(grpc.StatusCode.DEADLINE_EXCEEDED), details="Deadline Exceeded"))

    def _drop(self, end: pb.End) -> None:
        self._asking.drop(self._answer)
        self._answer.end = end
        self._changed()
        self._wake()


class UnaryCall(StreamCall):
    """One call whose answer is one message: await it."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._only().__await__()

    async def _only(self) -> Any:
        message = await self.read()
        # The status comes with the message, or right behind it.
        if message is grpc.aio.EOF or await self.read() is not grpc.aio.EOF:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), "not one message but none or many"
            )
        return message


def _over(end: pb.End) -> object:
    code = _code(end)
    if code is grpc.StatusCode.OK:
        return grpc.aio.EOF
    trailers = grpc.aio.Metadata(*metadata_of(end.trailers))
    raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, end.details)


def _code(end: pb.End) -> grpc.StatusCode:
    return _CODES.get(end.code, grpc.StatusCode.UNKNOWN)


def _number(code: grpc.StatusCode) -> int:
    number: int = code.value[0]
    return number
