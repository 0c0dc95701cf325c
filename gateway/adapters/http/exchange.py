"""One HTTP request and its answer, over ASGI."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Final, TypeAlias

from gateway.core.keys import Caller
from gateway.core.openai.answer import Disclosed, Usage
from gateway.core.openai.errors import ErrorDetail, Refusal
from gateway.core.request_usage import RequestUsage
from mesh.tasks import spawn
from mesh.telemetry import Scope

Headers: TypeAlias = list[tuple[bytes, bytes]]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_JSON: Final = b"application/json"
# An error that ends a stream is not worth waiting long for.
_LAST_WORD_S: Final = 1.0
_DROPPED_FROM_BYTES: Final = 256 * 1024
_DROPPED_WITHIN_S: Final = 10.0


class RequestRefused(Exception):
    """A request that HTTP itself has a status for."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail.message)
        self.refusal = refusal


class Exchange:
    """What one handler works with. The fields below `usage_totals` are what the summary line is made of."""

    __slots__ = (
        "_close", "_ended", "_receive", "_send", "always", "caller", "discloses", "done", "gone", "headers", "method",
        "model", "path", "reason", "route", "scope", "status", "stream", "usage_totals",
    )  # fmt: skip

    def __init__(self, asgi: Message, receive: Receive, send: Send, *, close: bool) -> None:
        self._receive = receive
        self._send = send
        # Whether all of the request is there.
        self._ended = False
        # Whether the connection ends with this answer.
        self._close = close
        self.method: str = asgi["method"]
        self.path: str = asgi["path"]
        self.headers: dict[bytes, bytes] = dict(asgi["headers"])
        self.scope: Scope
        self.usage_totals = RequestUsage()
        # Headers of every answer.
        self.always: Headers = []
        self.route = "none"
        self.status = 0
        self.reason = ""
        self.model = ""
        self.caller: Caller | None = None
        # Whether the caller asked what was done to answer.
        self.discloses = False
        # Whether the answer is, or was, sent as a stream of events.
        self.stream = False
        # Whether all of the answer was sent.
        self.done = False
        # Whether the client went away before that.
        self.gone = False

    def header(self, name: bytes) -> str | None:
        """A request header's value; its name in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def body(self, maximum: int, within_s: float) -> bytes:
        """The whole body. Raises RequestRefused where it is too large or too slow."""
        length = self.headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > maximum:
            raise too_large(maximum)
        message = await self._receive()
        if not message.get("more_body", False):
            return self._piece(message, maximum)
        pieces = [self._piece(message, maximum)]
        size = len(pieces[0])
        try:
            async with asyncio.timeout(within_s):
                while message.get("more_body", False):
                    message = await self._receive()
                    pieces.append(self._piece(message, maximum - size))
                    size += len(pieces[-1])
        except TimeoutError:
            detail = ErrorDetail(
                "The request did not arrive in time.", "invalid_request_error", None, "request_timeout"
            )
            self._close = True
            self.give_up_reading()
            raise RequestRefused(Refusal(408, detail)) from None
        return b"".join(pieces)

    def give_up_reading(self) -> None:
        """Answer at once from now on, whatever of the request is still to come."""
        self._ended = True

    async def respond(
        self, status: int, body: bytes, headers: Headers | None = None, content_type: bytes = _JSON
    ) -> None:
        """Answer at once."""
        fixed = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
        await self._start(status, [*fixed, *(headers or ())])
        await self.end(body)

    async def start_stream(self, headers: Headers) -> None:
        """Begin an answer of events."""
        self.stream = True
        fixed = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await self._start(200, [*fixed, *headers])

    async def write(self, data: bytes) -> None:
        """Send events; waits while the client reads too slowly."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes) -> None:
        """Send the last of the answer."""
        self.done = True
        await self._send({"type": "http.response.body", "body": data})

    async def fail(self, refusal: Refusal, disclosed: Disclosed | None = None, usage: Usage | None = None) -> None:
        """Answer with an error: as a status where nothing was sent yet, else as the stream's last event.

        A whole answer that is already on its way stays as it is.
        """
        if not self.status:
            await self._drop_rest()
            await self.respond(refusal.status, refusal.body(disclosed), refusal.headers)
            return
        body = refusal.body(disclosed, usage)
        if self.done or not self.stream:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORD_S):
                await self.end(b"data: %b\n\n" % body)

    @contextlib.contextmanager
    def cancelled_with_client(self) -> Iterator[None]:
        """Cancel this task when the client goes away inside the block; `gone` tells it from other cancellations."""
        task = asyncio.current_task()
        assert task is not None  # handlers run in tasks
        watcher = spawn("client_watch", self._watch(task))
        try:
            yield
        finally:
            watcher.cancel()

    async def _watch(self, task: asyncio.Task[Any]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.done:
            self.gone = True
            task.cancel()

    async def _drop_rest(self) -> None:
        """Read and drop a large body that nobody will read.

        Whoever is between closes a connection that is answered before its request has ended, and a client that still
        sends then never sees the answer. What is small lies in the sockets' buffers.
        """
        length = self.headers.get(b"content-length", b"")
        if self._ended or not length.isdigit() or int(length) < _DROPPED_FROM_BYTES:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DROPPED_WITHIN_S):
                while not self._ended:
                    message = await self._receive()
                    self.gone = message["type"] == "http.disconnect"
                    self._ended = self.gone or not message.get("more_body", False)

    def _piece(self, message: Message, maximum: int) -> bytes:
        if message["type"] == "http.disconnect":
            self._ended = self.gone = True
            raise asyncio.CancelledError
        self._ended = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        if len(piece) > maximum:
            raise too_large(maximum)
        return piece

    async def _start(self, status: int, headers: Headers) -> None:
        self.status = status
        headers += self.always
        headers.append((b"x-request-id", self.scope.request_id.encode("latin-1")))
        if self._close:
            headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


def too_large(maximum: int) -> RequestRefused:
    """What a larger body is answered with."""
    message = f"The request is larger than {maximum} bytes."
    return RequestRefused(Refusal(413, ErrorDetail(message, "invalid_request_error", None, "request_too_large")))
