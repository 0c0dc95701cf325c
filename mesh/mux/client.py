"""The calling side: one stream to one peer, and the choice between it and a call of its own."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable
from typing import Any, Final

import grpc
import structlog

from headrace.mesh.v1 import mux_pb2 as pb
from headrace.mesh.v1 import mux_pb2_grpc
from mesh.mux.calls import StreamCall, UnaryCall
from mesh.mux.protocol import CallerEnd, headers_of
from mesh.tasks import spawn

_log = structlog.get_logger()
# Larger requests are calls of their own: they would hold up what comes behind them.
_LARGEST_ASK_BYTES: Final = 64 * 1024
# Calls on one stream at most; more are calls of their own, which the data plane limits.
_MAX_OPEN: Final = 1024
# How long a peer may take to say that it listens.
_GREETING_S: Final = 5.0
_PAUSES_S: Final = (0.1, 0.2, 0.5, 1.0)
# A peer that knows no such service may be another by then.
_UNKNOWN_PAUSE_S: Final = 30.0

Metadata = Iterable[tuple[str, str | bytes]]


class MuxChannel:
    """Stands where a channel to one peer does, for methods that take one request.

    A call goes over the stream where that is up, where `carries` allows it, and where the call has a deadline and a
    request that is not large; else directly, which means the same and costs more. The first call begins to open the
    stream. A target that stands for several peers gets one stream to one of them.
    """

    def __init__(self, channel: grpc.aio.Channel, carries: Callable[[], bool] = lambda: True) -> None:
        self.channel = channel
        self._carries = carries
        # Where new calls go, and the stream that is open: it outlives that while calls on it come to their end.
        self._link: _Link | None = None
        self._held: _Link | None = None
        self._wanted = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def up(self) -> bool:
        """Whether calls go over the stream now."""
        return self._link is not None and self._carries()

    @property
    def open_calls(self) -> int:
        """Calls under way on the stream."""
        return self._link.asking.open if self._link else 0

    def connect(self) -> None:
        """Begin to open the stream. Returns at once; does nothing after `close`."""
        self._wanted.set()
        if not self._closed and (self._keeper is None or self._keeper.done()):
            self._keeper = spawn("mux", self._keep())

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        _registered_method: bool = False,  # what generated stubs say
    ) -> Callable[..., Any]:
        """See grpc.aio.Channel. What is made is called with a request, `timeout` and `metadata`."""
        direct = self.channel.unary_stream(method, request_serializer, response_deserializer)
        return self._method(method, direct, StreamCall, request_serializer, response_deserializer)

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        _registered_method: bool = False,  # what generated stubs say
    ) -> Callable[..., Any]:
        """See grpc.aio.Channel. What is made is called with a request, `timeout` and `metadata`."""
        direct = self.channel.unary_unary(method, request_serializer, response_deserializer)
        return self._method(method, direct, UnaryCall, request_serializer, response_deserializer)

    async def close(self, grace_s: float = 0.0) -> None:
        """Take no new calls on the stream, let those on it end for at most `grace_s`, and end it.

        The channel stays open: it is its owner's.
        """
        self._closed = True
        self._retire()
        if self._held is not None and grace_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._held.over.wait(), grace_s)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))

    def _method(
        self,
        method: str,
        direct: Callable[..., Any],
        kind: type[StreamCall],
        serialize: Callable[[Any], bytes],
        deserialize: Callable[[bytes], Any],
    ) -> Callable[..., Any]:
        def call(request: Any, *, timeout: float | None = None, metadata: Metadata = (), **options: Any) -> Any:
            link = self._link
            if link is None:
                if self._carries():
                    self.connect()
            elif timeout is not None and not options and link.asking.open < _MAX_OPEN and self._carries():
                body = serialize(request)
                if len(body) <= _LARGEST_ASK_BYTES:
                    ask = pb.Ask(method=method, headers=headers_of(metadata), body=body)
                    return kind(link.asking, ask, timeout, deserialize, link.waiting.set)
            return direct(request, timeout=timeout, metadata=metadata, **options)

        return call

    def _retire(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.retire()

    async def _keep(self) -> None:
        """Hold a stream open whenever one is wanted, until cancelled."""
        failures = 0
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            pause = _PAUSES_S[min(failures, len(_PAUSES_S) - 1)]
            failures += 1
            if self._carries():
                try:
                    if await self._hold():
                        failures = 0
                except grpc.aio.AioRpcError as error:
                    _log.info("mux.down", code=error.code().name, details=error.details())
                    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                        pause = _UNKNOWN_PAUSE_S
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter needs no secrecy

    async def _hold(self) -> bool:
        """Open a stream and serve it to its end; whether it was up. Raises AioRpcError with what ended it."""
        call = mux_pb2_grpc.MuxStub(self.channel).Carry()
        try:
            async with asyncio.timeout(_GREETING_S):
                greeting = await call.read()
            if greeting is grpc.aio.EOF:
                return False
            link = self._link = self._held = _Link(call)
            await link.serve(self._retire)
        except TimeoutError:
            return False
        finally:
            self._held = None
            call.cancel()
        return True


class _Link:
    """One stream that is up."""

    def __init__(self, call: Any) -> None:
        self.asking = CallerEnd()
        self.waiting = asyncio.Event()
        # Set when no new calls come and the last of the others is over.
        self.over = asyncio.Event()
        self._call = call
        self._retiring = False

    def retire(self) -> None:
        """No new calls: the stream ends with the last of those on it."""
        self._retiring = True
        self._look()

    async def serve(self, leave: Callable[[], object]) -> None:
        """Send and receive until the stream ends; calls still on it then fail as it did. Raises AioRpcError.

        `leave` is called, perhaps more than once, when no new call may come.
        """
        tasks = [asyncio.create_task(work) for work in (self._read(leave), self._write(), self.over.wait())]
        code, details = grpc.StatusCode.UNAVAILABLE, "the stream that carried the call ended"
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details() or details
            raise
        finally:
            leave()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.over.set()
            self.asking.fail(code.value[0], details)

    async def _read(self, leave: Callable[[], object]) -> None:
        while (response := await self._call.read()) is not grpc.aio.EOF:
            self.asking.deliver(response)
            if self.asking.waits:
                self.waiting.set()
            if response.draining and not self._retiring:
                leave()
            self._look()

    async def _write(self) -> None:
        while True:
            await self.waiting.wait()
            self.waiting.clear()
            while (request := self.asking.batch()) is not None:
                await self._call.write(request)
            self._look()

    def _look(self) -> None:
        if self._retiring and not self.asking.open:
            self.over.set()
