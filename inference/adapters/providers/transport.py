"""One streamed POST to a provider. How long its answer may take is the business of whoever waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final

import aiohttp
import msgspec

from inference.core.providers import failures
from inference.core.providers.dialect import HttpCall
from mesh.config import Secret
from mesh.errors import MeshError, Unavailable

# Of an error's body; no provider says more.
_MAX_ERROR_BODY: Final = 64 << 10
_MAX_REDACTED: Final = 8
# Without a byte for so long, keep-alives included, a connection is dead, and its place is needed.
_DEAD_S: Final = 600.0
_EVENT_STREAM: Final = "text/event-stream"
# How the key is shown to the provider: its header's name and value.
Authorize = Callable[[Secret], Mapping[str, str]]


@dataclass
class _Kept:
    """Whether a request went out on a connection that had served another before."""

    used: bool = False


async def _note_kept(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.used = True


class Transport:
    """Connections to one provider. Opens none before the first call; `close` may be called twice."""

    def __init__(self, base_url: str, *, connect_s: float, limit: int, authorize: Authorize) -> None:
        self._base_url = base_url.rstrip("/")
        self._connect_s = connect_s
        self._limit = limit
        self._authorize = authorize
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def post(self, call: HttpCall, key: Secret) -> AsyncIterator[aiohttp.StreamReader]:
        """The body of the answer, which is an event stream. Leaving closes the connection unless it was read whole.

        Raises Unavailable (CONNECT_FAILED, CONNECT_TIMEOUT, after ten minutes HEADERS_TIMEOUT), or what the provider's
        error means.
        """
        response = await self._begun(call, key)
        try:
            if response.status != 200 or response.content_type != _EVENT_STREAM:
                raise await _refusal(response, key)
            yield response.content
        finally:
            # Goes back to the pool where the body was read to its end, and is closed otherwise.
            response.close() if not response.content.at_eof() else response.release()

    async def _begun(self, call: HttpCall, key: Secret) -> aiohttp.ClientResponse:
        try:
            return await self._respond(call, key)
        except aiohttp.ConnectionTimeoutError as error:
            raise Unavailable("no connection to the provider in time", reason="CONNECT_TIMEOUT") from error
        except TimeoutError as error:
            raise Unavailable("the provider did not begin to answer in time", reason="HEADERS_TIMEOUT") from error
        except aiohttp.ClientConnectorError as error:
            raise Unavailable("the provider cannot be reached", reason="CONNECT_FAILED") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable("the provider closed the connection", reason="PROVIDER_FAILED") from error

    async def _respond(self, call: HttpCall, key: Secret) -> aiohttp.ClientResponse:
        kept = _Kept()
        try:
            return await self._send(call, key, kept)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            # The server had closed a kept connection, which shows only when it is used again; a new one is asked once.
            if not kept.used:
                raise
            return await self._send(call, key, _Kept())

    async def _send(self, call: HttpCall, key: Secret, kept: _Kept) -> aiohttp.ClientResponse:
        headers = {"accept": _EVENT_STREAM, "content-type": "application/json", **call.headers}
        if key:
            headers |= self._authorize(key)
        return await self._opened().post(
            self._base_url + call.path,
            params=call.query,
            data=msgspec.json.encode(call.body),
            headers=headers,
            # The key must not follow to wherever a redirect points.
            allow_redirects=False,
            trace_request_ctx=kept,
        )

    def _opened(self) -> aiohttp.ClientSession:
        # Built inside the loop, as aiohttp wants it.
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_connection_reuseconn.append(_note_kept)
            self._session = aiohttp.ClientSession(
                trace_configs=[trace],
                connector=aiohttp.TCPConnector(limit=self._limit),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_s, sock_read=_DEAD_S),
                auto_decompress=True,
                read_bufsize=64 << 10,
            )
        return self._session


async def _refusal(response: aiohttp.ClientResponse, key: Secret) -> MeshError:
    """What an answer that is no event stream means."""
    try:
        async with asyncio.timeout(5.0):
            body = await response.content.read(_MAX_ERROR_BODY)
    except (TimeoutError, aiohttp.ClientError):
        body = b""
    error = failures.decode_error(_redacted(body, key))
    if response.status != 200:
        headers = {name.lower(): value for name, value in response.headers.items()}
        return failures.of_response(response.status, headers, error, time.time())
    if error.message or error.words:
        return failures.of_body(error)
    return failures.Malformed("an answer that is no event stream")


def _redacted(body: bytes, key: Secret) -> bytes:
    """Providers like to repeat the key that they refuse."""
    plain = key.reveal().encode()
    return body.replace(plain, b"***") if len(plain) >= _MAX_REDACTED else body
