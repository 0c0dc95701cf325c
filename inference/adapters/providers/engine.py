"""Any provider as an engine: its dialect, over HTTP, within its timers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import aiohttp

from headrace.common.v1.generation_pb2 import GenerationProgress
from headrace.inference.v1.inference_pb2 import ModelCard
from inference.adapters.providers.credentials import Credentials
from inference.adapters.providers.transport import Transport
from inference.core.chat_port import ChatEvent, ChatRequest
from inference.core.meter import RateMeter
from inference.core.port import EngineLoad
from inference.core.providers import failures
from inference.core.providers.answer_stream import AnswerStream
from inference.core.providers.bound import Bound
from inference.core.providers.dialect import Dialect
from inference.core.providers.thoughts import Thoughts
from mesh.errors import MeshError, ResourceExhausted, Unavailable

_READ: Final = 16 << 10
# A provider that has said everything but its own end gets so long for that: its connection can then be kept.
_LINGER_S: Final = 1.0
_AT_WORK: Final = GenerationProgress(stage=GenerationProgress.STAGE_PREFILL, prompt_read=1.0)


class ProviderEngine:
    """See inference.core.chat_port.ChatEngine."""

    def __init__(
        self,
        *,
        dialect: Dialect,
        transport: Transport,
        credentials: Credentials,
        card: ModelCard,
        base_url: str,
        max_answer_bytes: int,
        max_running: int,
    ) -> None:
        self._dialect = dialect
        self._transport = transport
        self._credentials = credentials
        self._card = card
        self._base_url = base_url
        self._max_answer_bytes = max_answer_bytes
        self._max_running = max_running
        self._running = 0
        self._meter = RateMeter()

    async def start(self) -> None:
        """See ChatEngine. Raises ValueError where the key file gives no key."""
        self._credentials.check()

    async def close(self) -> None:
        """See ChatEngine."""
        await self._transport.close()

    @property
    def card(self) -> ModelCard:
        """See ChatEngine."""
        # A key that was replaced is another account's, as far as anybody knows.
        with contextlib.suppress(Unavailable):
            self._card.account = self._credentials.account(self._base_url)
        return self._card

    def load(self) -> EngineLoad:
        """See ChatEngine. The rate is of text pieces: most providers send one a token."""
        return EngineLoad(0, self._running, self._max_running, self._meter.rate(time.monotonic()))

    async def generate(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        """See ChatEngine."""
        if self._running >= self._max_running:
            message = f"{self._running} calls to the provider are under way, and no more are allowed"
            raise ResourceExhausted(message, reason="QUEUE_FULL", retry_after_s=1.0)
        self._running += 1
        answering = False
        try:
            async with aclosing(self._answer(request)) as events:
                async for event in events:
                    answering = answering or not isinstance(event, GenerationProgress)
                    yield event
        except MeshError as error:
            raise (failures.cut(error) if answering else error) from error
        finally:
            self._running -= 1

    async def _answer(self, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        call = self._dialect.call(request)
        bound = Bound(request.generation.sampling, self._card.context_length, self._max_answer_bytes)
        stream = AnswerStream(self._dialect.reader(request), bound)
        async with self._transport.post(call, self._credentials.key()) as body:
            thoughts = Thoughts()
            ends: float | None = None
            while not stream.over and (chunk := await _read(body, ends)):
                for delta in stream.feed(chunk):
                    self._meter.add(1, time.monotonic())
                    thoughts.over = True
                    yield delta
                if thoughts.tell(stream.progress, time.monotonic()):
                    yield _AT_WORK
                if ends is None and stream.whole:
                    ends = asyncio.get_running_loop().time() + _LINGER_S
            # Leaving closes a connection that is not read to its end, and with it the provider's work.
        last, summary = stream.end()
        for delta in last:
            yield delta
        yield summary


async def _read(body: aiohttp.StreamReader, ends: float | None) -> bytes:
    """The next bytes; none at the end. Raises Unavailable.

    `ends` is set once nothing is missing any more: how the stream ends from there on is nobody's loss.
    """
    try:
        async with asyncio.timeout_at(ends):
            return await body.read(_READ)
    except (aiohttp.ClientError, OSError) as error:
        if ends is not None:
            return b""
        raise Unavailable("the provider's connection broke", reason="PROVIDER_STREAM_BROKEN") from error
