"""The llama.cpp engine: continuous batching by llama.cpp's own server loop, driven by token ids.

xllamacpp runs that loop on threads of its own. A choice occupies one thread of a pool for as long as it runs; the
queue before the slots is ours, because only there can a waiting request be bounded, ordered and cancelled.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xllamacpp

from inference.adapters.gguf_header import read_metadata
from inference.adapters.llamacpp.generation import Generation, LlamaCpp
from inference.adapters.llamacpp.job import Pulse
from inference.adapters.llamacpp.loading import Loading, check_memory, parameters, why_not
from inference.adapters.llamacpp.lost_tokens import LostTokens
from inference.adapters.llamacpp.settings import LlamaCppSettings
from inference.adapters.llamacpp.wire import encode_request
from inference.adapters.model_files import checked, missing_model
from inference.adapters.tokenizer import load_text_model
from inference.core.backend import TokenBackend
from inference.core.meter import RateMeter
from inference.core.port import (
    ConstraintKind,
    EngineDelta,
    EngineError,
    EngineEvent,
    EngineInfo,
    EngineLoad,
    EngineRequest,
)
from inference.core.slots import Slots
from inference.core.text import Tokenizer


def build(settings: LlamaCppSettings) -> TokenBackend:
    """The engine, its model file checked. Raises ValueError or OSError, naming the file."""
    name, path, sha256 = settings.model()
    if not path.exists():
        raise ValueError(f"model_path: {missing_model(path)}")
    if path.is_dir():
        raise ValueError(
            f"model_path: {path.name!r} is a folder; llama.cpp takes a GGUF file, folders the torch engine"
        )
    revision = checked(path, sha256)
    text = load_text_model(path)
    trained = _trained_context(path)
    check_memory(settings, path, min(settings.context_length, trained))
    info = EngineInfo(
        engine="llamacpp",
        model=name,
        revision=revision,
        context_length=min(settings.context_length, trained),
        vocab_size=text.tokenizer.vocab_size,
        # No grammars and no expressions: llama.cpp prints what it cannot parse to stderr, and goes on without.
        constraints=frozenset({ConstraintKind.JSON_OBJECT, ConstraintKind.JSON_SCHEMA}),
    )
    return TokenBackend(LlamaCppEngine(settings, path, info, text.tokenizer), lambda: text, default_model=name)


def _trained_context(path: Path) -> int:
    """The tokens of context that the model was made for."""
    lengths = [v for k, v in read_metadata(path).items() if k.endswith(".context_length") and isinstance(v, int)]
    if not lengths or lengths[0] < 1:
        raise ValueError(f"{path.name}: its metadata has no context_length")
    return int(lengths[0])


class LlamaCppEngine:
    """See inference.core.port.Engine.

    Choices of one request run side by side, each in a slot. Greedy answers may differ in rounding from one batch to
    the next, as llama.cpp's kernels depend on the batch's size.
    """

    def __init__(self, settings: LlamaCppSettings, path: Path, info: EngineInfo, tokenizer: Tokenizer) -> None:
        self._settings = settings
        self._path = path
        self._tokenizer = tokenizer
        self.info = info
        self._slots = Slots(settings.max_running, settings.max_queued)
        self._meter = RateMeter()
        self._pool = ThreadPoolExecutor(settings.max_running, thread_name_prefix="llamacpp")
        self._generations: set[Generation] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._closed = False
        self._server: Any = None
        self._lost: LostTokens | None = None
        self._pulse = Pulse()

    async def start(self) -> None:
        """Load and warm up. Raises EngineError."""
        try:
            self._server = await asyncio.to_thread(self._load)
        except RuntimeError as error:
            why = await asyncio.to_thread(why_not, self._settings, self._path, self.info.context_length)
            raise EngineError(f"llama.cpp cannot load {self._path.name}: {why or error}") from error
        for number in (signal.SIGTERM, signal.SIGINT):
            # llama.cpp's server put handlers of its own in place, below Python's: put Python's back.
            signal.signal(number, signal.getsignal(number))

    async def close(self) -> None:
        """End what runs, then stop llama.cpp's threads."""
        self._closed = True
        for generation in tuple(self._generations):
            await generation.end()
        await asyncio.to_thread(self._unload)

    def load(self) -> EngineLoad:
        """See Engine."""
        slots = self._slots
        return EngineLoad(slots.queued, slots.running, slots.capacity, self._meter.rate(time.monotonic()))

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
        """See Engine."""
        if self._closed or self._server is None or self._lost is None:
            raise EngineError("llama.cpp is not running")
        bodies = [encode_request(request, i) for i in range(request.n)]
        tickets = self._slots.enqueue(request.n, request.priority, request.deadline)
        llama = LlamaCpp(self._server, self._pool, self._tokenizer.token_bytes, self._lost, self._pulse)
        generation = Generation(request, llama)
        self._generations.add(generation)
        try:
            generation.begin(bodies, tickets)
            request.state.attach(end_choice=generation.end_choice, progress=generation.progress)
            async for event in generation.events():
                if isinstance(event, EngineDelta):
                    self._meter.add(len(event.tokens), time.monotonic())
                yield event
        finally:
            self._generations.discard(generation)
            await generation.end()

    def _load(self) -> xllamacpp.Server:
        self._lost = LostTokens(self._tokenizer.vocab_size, self._tokenizer.token_bytes)
        # The server listens whatever one says: on a socket in a folder that only this user can enter, behind a key
        # that nobody knows.
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-")
        loading = Loading.of(self._settings, self._path, self.info.context_length, f"{self._folder.name}/llama.sock")
        return xllamacpp.Server(parameters(loading))

    def _unload(self) -> None:
        self._pool.shutdown(wait=True)
        # Dropping the last reference stops llama.cpp's loop and joins its thread.
        self._server = None
        if self._folder is not None:
            self._folder.cleanup()
