"""uvicorn inside mesh.lifecycle: its socket, its start and its drain, without its signal handlers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any, Final

import structlog
import uvicorn

from mesh.address import split
from mesh.server import AddressTaken

_log = structlog.get_logger()
_BACKLOG: Final = 2048
# Longer than Envoy keeps idle connections to a gateway, so that it is Envoy that closes them.
_KEEP_ALIVE_S: Final = 75
_SEND_BUFFER_BYTES: Final = 256 * 1024
# Beyond the drain's deadline: what was cancelled says its last word.
_LAST_WORD_S: Final = 2.0


class HttpServer:
    """One listener. Bound when made, so that a taken address is found out at once."""

    def __init__(self, application: Any, address: str, stall_s: float) -> None:
        """Bind to host:port. Raises AddressTaken."""
        self._socket = _bind(address, stall_s)
        config = uvicorn.Config(
            application,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            # Nothing here asks who the client is.
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        self._server = _Uvicorn(config)
        self._ended = asyncio.Event()

    @property
    def port(self) -> int:
        """Where it listens, which matters when the address asked for port 0."""
        port: int = self._socket.getsockname()[1]
        return port

    async def started(self) -> None:
        """Return once connections are accepted."""
        await self._server.up.wait()
        _log.info("http.listening", port=self.port)

    async def run(self) -> None:
        """Serve until drained."""
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self._ended.set()

    async def drain(self, deadline_s: float) -> None:
        """Stop listening, close idle connections, let requests end for at most `deadline_s`, then cancel them."""
        tasks = self._server.server_state.tasks
        self._server.config.timeout_graceful_shutdown = deadline_s  # type: ignore[assignment]  # fractions work too
        self._server.should_exit = True
        await self._ended.wait()
        left = set(tasks)
        if left:
            await asyncio.wait(left, timeout=_LAST_WORD_S)
        _log.info("http.drained", cancelled=len(left))


class _Uvicorn(uvicorn.Server):
    """Signals are mesh.lifecycle's to handle."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _bind(address: str, stall_s: float) -> socket.socket:
    host, port = split(address)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it: a peer that acknowledges nothing, or leaves no room, for so long is cut off
        # by the kernel, which costs no timer per event.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(stall_s * 1e3))
        # What a slow reader leaves unread waits at the router, not here.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise AddressTaken(address, "HTTP", error.strerror) from error
    return listener
