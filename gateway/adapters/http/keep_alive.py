"""Comments on streams that are silent: whatever lies between may cut a connection on which nothing moves."""

from __future__ import annotations

import asyncio
from typing import Final

from gateway.adapters.http.exchange import Exchange
from mesh.tasks import spawn

_COMMENT: Final = b": keep-alive\n\n"


class KeepAlive:
    """Sends a comment after each `interval_s` of silence, while `waiting` says that nothing else is being sent.

    A stream that has not begun begins after twice that, so that most of what fails before the first piece still has a
    status of its own. One timer, which costs nothing per piece. Used as a context manager.
    """

    def __init__(self, exchange: Exchange, interval_s: float) -> None:
        self._exchange = exchange
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._waiting = False
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def __enter__(self) -> KeepAlive:
        """Begin to count."""
        self.waits()
        self._arm(2 * self._interval_s)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; nothing is sent any more."""
        self._waiting = False
        if self._timer is not None:
            self._timer.cancel()

    def waits(self) -> None:
        """The next piece is waited for."""
        self._since = self._loop.time()
        self._waiting = True

    def sends(self) -> None:
        """A piece is there."""
        self._waiting = False

    def _arm(self, after_s: float) -> None:
        self._timer = self._loop.call_later(after_s, self._look)

    def _look(self) -> None:
        patience = self._interval_s if self._exchange.stream else 2 * self._interval_s
        left = patience - (self._loop.time() - self._since)
        if self._waiting and left <= 0:
            if self._writing is None or self._writing.done():
                self._writing = spawn("keep_alive", self._comment())
            self._since, left = self._loop.time(), self._interval_s
        self._arm(max(left, self._interval_s / 10))

    async def _comment(self) -> None:
        if self._waiting and not self._exchange.stream:
            await self._exchange.start_stream([])
        if self._waiting:
            await self._exchange.write(_COMMENT)
