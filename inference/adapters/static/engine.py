"""The static engine: an honest engine port without a model behind it."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

import msgspec

from inference.adapters.static.vocabulary import FIRST_WORD, VOCAB_SIZE, load_text_model
from inference.core.backend import TokenBackend
from inference.core.generation_state import Progress, Stage
from inference.core.meter import RateMeter
from inference.core.port import (
    Confidence,
    ContextTooLong,
    EngineDelta,
    EngineError,
    EngineEvent,
    EngineInfo,
    EngineLoad,
    EngineRequest,
    EngineSummary,
    Finish,
    TokenLogprob,
)
from inference.core.slots import Slots
from mesh.lifecycle import Seconds

Count = Annotated[int, msgspec.Meta(ge=1)]
# Changes when the same prompt would give other words.
_REVISION = "static-1"
_ALTERNATIVES = 20


@dataclass(frozen=True)
class StaticSettings:
    """HEADRACE_INFERENCE_* of the static engine."""

    # Tokens in an answer, unless the request asks for fewer.
    answer_tokens: Count = 32
    first_token_s: Seconds = 0.0
    # Time between tokens; 0 gives the whole answer at once.
    token_interval_s: Seconds = 0.0
    # Tokens that come at once: with more than one the engine wakes less often, at the same rate.
    burst_tokens: Count = 1
    max_running: Count = 256
    max_queued: Annotated[int, msgspec.Meta(ge=0)] = 256
    context_length: Count = 8192


def build(settings: StaticSettings) -> TokenBackend:
    """The engine with its vocabulary."""
    return TokenBackend(StaticEngine(settings), load_text_model, default_model="static")


class StaticEngine:
    """See inference.core.port.Engine.

    An answer's words follow from the prompt, and with a temperature from the seed and the choice too; so a resumed
    answer continues as it would have gone on.
    """

    def __init__(self, settings: StaticSettings) -> None:
        self._settings = settings
        self._slots = Slots(settings.max_running, settings.max_queued)
        self._meter = RateMeter()
        self._closed = asyncio.Event()
        self.info = EngineInfo("static", "static", _REVISION, settings.context_length, VOCAB_SIZE)

    async def start(self) -> None:
        """There is nothing to load."""

    async def close(self) -> None:
        """End what runs."""
        self._closed.set()

    def load(self) -> EngineLoad:
        """See Engine."""
        slots = self._slots
        return EngineLoad(slots.queued, slots.running, slots.capacity, self._meter.rate(time.monotonic()))

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
        """See Engine."""
        if len(request.prompt) >= self._settings.context_length:
            raise ContextTooLong(f"{len(request.prompt)} tokens; the context is {self._settings.context_length}")
        (ticket,) = self._slots.enqueue(1, request.priority, request.deadline)
        # Its slots are handed out on the event loop: whoever can ask knows that it goes on.
        request.state.attach(progress=lambda: Progress(Stage.QUEUED) if ticket.queued else None)
        try:
            queue_s = await ticket.wait()
            started = time.monotonic()
            answers = [_Answer(request, i, self._settings.answer_tokens) for i in range(request.n)]
            await self._wait(self._settings.first_token_s)
            first = time.monotonic()
            unwanted = request.state.unwanted
            while running := [a for a in answers if not (a.finished or a.index in unwanted)]:
                due = self._due(time.monotonic() - first)
                for answer in running:
                    delta = answer.draw(due)
                    self._meter.add(len(delta.tokens), time.monotonic())
                    yield delta
                if not all(answer.finished for answer in running):
                    await self._wait(self._settings.token_interval_s * self._settings.burst_tokens)
            yield EngineSummary(
                prompt_tokens=len(request.prompt),
                completion_tokens=sum(answer.drawn for answer in answers),
                queue_s=queue_s,
                prefill_s=first - started,
                decode_s=time.monotonic() - first,
            )
        finally:
            ticket.release()

    def _due(self, elapsed_s: float) -> float:
        """How many tokens of a choice should be out by now."""
        interval = self._settings.token_interval_s
        return 1 + elapsed_s // interval if interval else math.inf

    async def _wait(self, seconds: float) -> None:
        if self._closed.is_set():
            raise EngineError("closed")
        if seconds > 0:
            await asyncio.sleep(seconds)


class _Answer:
    """One choice's words."""

    def __init__(self, request: EngineRequest, index: int, answer_tokens: int) -> None:
        sampling = request.sampling
        room = sampling.max_tokens
        wanted = room if sampling.ignore_eos else min(answer_tokens, room)
        self.index = index
        self._finish = Finish.LENGTH if sampling.ignore_eos or answer_tokens > room else Finish.STOP
        self._logprobs = sampling.logprobs
        words = random.Random(_seed(request, index))  # noqa: S311 - words for show
        done = len(request.emitted[index]) if request.emitted else 0
        self._words = words.choices(range(FIRST_WORD, VOCAB_SIZE), k=wanted)[done:]
        self.drawn = 0
        self.finished = False

    def draw(self, due: float) -> EngineDelta:
        """The tokens that are due and not given yet."""
        upto = int(min(len(self._words), max(self.drawn + 1, due)))
        tokens = tuple(self._words[self.drawn : upto])
        self.drawn = upto
        self.finished = self.drawn == len(self._words)
        logprobs = tuple(self._logprob(token) for token in tokens) if self._logprobs is not None else ()
        if not self.finished:
            return EngineDelta(self.index, tokens, logprobs)
        return EngineDelta(self.index, tokens, logprobs, self._finish, self._confidence())

    def _logprob(self, token: int) -> TokenLogprob:
        """As if the drawn word had half the probability, the next word a quarter, and so on."""
        span = VOCAB_SIZE - FIRST_WORD
        ranked = [FIRST_WORD + (token - FIRST_WORD + i) % span for i in range(min(self._logprobs or 0, _ALTERNATIVES))]
        top = tuple((other, -math.log(2) * (rank + 1)) for rank, other in enumerate(ranked))
        return TokenLogprob(token, -math.log(2), top)

    def _confidence(self) -> Confidence | None:
        if not self.drawn:
            return None
        # Of the halving distribution that _logprob describes.
        half = math.log(2)
        return Confidence(-half, -half, mean_entropy=2 * half, mean_margin=0.25, tokens=self.drawn)


def _seed(request: EngineRequest, index: int) -> bytes:
    digest = hashlib.sha256(b"".join(token.to_bytes(4, "little") for token in request.prompt))
    if request.sampling.temperature > 0:
        digest.update(f"{request.sampling.seed or 0}/{index}".encode())
    return digest.digest()
