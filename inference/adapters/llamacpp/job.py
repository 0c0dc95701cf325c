"""One choice of one request, from the side of the thread that llama.cpp calls back on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from inference.adapters.llamacpp.lost_tokens import LostTokens
from inference.adapters.llamacpp.wire import Chunk, Drawn, Timings, decode_chunk
from inference.core.port import (
    ContextTooLong,
    EngineDelta,
    EngineError,
    Finish,
    GenerationFailed,
    TokenLogprob,
    UnsupportedConstraint,
)
from inference.core.running_confidence import RunningConfidence

TokenBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Ended:
    """A choice is over; `tokens` were given out."""

    timings: Timings
    tokens: int = 0
    error: EngineError | None = None


@dataclass(slots=True)
class Pulse:
    """Counts llama.cpp's steps, roughly: several threads count at once, and all that matters is that it moves."""

    beats: int = 0


class Job:
    """Runs a completion and hands its events to `emit`, on the thread that `run` is called on."""

    def __init__(
        self,
        index: int,
        logprobs: int | None,
        token_bytes: TokenBytes,
        lost: LostTokens,
        emit: Callable[[EngineDelta | Ended], None],
        *,
        pulse: Pulse,
    ) -> None:
        # Set from any thread: the completion ends at its next event, which every step brings one of.
        self.cancelled = False
        # The share of the prompt that was read.
        self.read = 0.0
        self._pulse = pulse
        self._index = index
        self._logprobs = logprobs
        self._token_bytes = token_bytes
        self._lost = lost
        self._emit = emit
        self._confidence = RunningConfidence()
        # Tokens that llama.cpp counts, and that were given out.
        self._counted = 0
        self._given = 0
        # An end-of-text token comes like any other and is known for it only by what follows.
        self._held: tuple[Drawn, ...] = ()
        self._timings = Timings()
        self._error: EngineError | None = None

    def run(self, server: Any, body: bytes) -> None:
        """Generate. Blocks until the choice is over or cancelled."""
        try:
            server.handle_completions(body, self._on_chunk)
        except Exception as error:
            self._error = GenerationFailed(f"llama.cpp: {error}")
        self._emit(Ended(self._timings, self._given, self._error))

    def _on_chunk(self, data: bytes) -> bool:
        """Returns True to stop."""
        self._pulse.beats += 1
        if self.cancelled:
            return True
        try:
            chunk = decode_chunk(data)
            if chunk.error is not None:
                self._error = _refusal(chunk.error.code, chunk.error.message)
                return True
            self._take(chunk)
        except Exception as error:
            self._error = GenerationFailed(f"llama.cpp's answer: {error}")
            return True
        return False

    def _take(self, chunk: Chunk) -> None:
        if chunk.prompt_progress is not None:
            self.read = chunk.prompt_progress.share
        if chunk.timings is not None:
            self._timings = chunk.timings
        if not chunk.choices:
            return
        part = chunk.choices[0]
        drawn = tuple(part.logprobs.content) if part.logprobs else ()
        if part.finish_reason is not None:
            self._finish(part.finish_reason, drawn)
        elif drawn:
            self._go_on(part.text, drawn)

    def _go_on(self, text: str, drawn: tuple[Drawn, ...]) -> None:
        missing = self._timings.predicted_n - self._counted - len(drawn)
        self._counted = self._timings.predicted_n
        found: tuple[int, ...] = ()
        if missing > 0:
            known = b"".join(self._token_bytes(entry.id) for entry in drawn)
            found = self._lost.find(text.encode().removesuffix(known), missing) or ()
        ready, self._held = self._held, ()
        if not found and not self._token_bytes(drawn[-1].id):
            self._held = drawn[-1:]
            drawn = drawn[:-1]
        if found or ready or drawn:
            self._emit(self._delta(found, (*ready, *drawn)))

    def _finish(self, reason: str, drawn: tuple[Drawn, ...]) -> None:
        ended_itself = reason == "stop"
        last = () if ended_itself else (*self._held, *drawn)
        delta = self._delta((), last)
        finish = Finish.STOP if ended_itself else Finish.LENGTH
        self._emit(EngineDelta(self._index, delta.tokens, delta.logprobs, finish, self._confidence.result()))

    def _delta(self, found: tuple[int, ...], drawn: tuple[Drawn, ...]) -> EngineDelta:
        for entry in drawn:
            self._confidence.add(entry.logprob, [other.logprob for other in entry.top_logprobs])
        tokens = (*found, *(entry.id for entry in drawn))
        self._given += len(tokens)
        if self._logprobs is None:
            return EngineDelta(self._index, tokens)
        count = self._logprobs
        logprobs = tuple(
            TokenLogprob(entry.id, entry.logprob, tuple((o.id, o.logprob) for o in entry.top_logprobs[:count]))
            for entry in drawn
        )
        return EngineDelta(self._index, tokens, logprobs)


def _refusal(code: int, message: str) -> EngineError:
    if "context size" in message:
        return ContextTooLong(message)
    if code == 400 and ("grammar" in message or "schema" in message):
        return UnsupportedConstraint(message)
    return GenerationFailed(message)
