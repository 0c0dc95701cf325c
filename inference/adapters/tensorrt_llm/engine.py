"""The TensorRT-LLM engine: its `LLM` schedules, batches and draws; what is ours is admission, order and endings."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any

from inference.adapters.tokenizer import load_text_model
from inference.core.backend import TokenBackend
from inference.core.generation_state import Progress, SignsOfLife, Stage
from inference.core.meter import RateMeter
from inference.core.port import (
    AdapterNotFound,
    ContextTooLong,
    EngineDelta,
    EngineError,
    EngineEvent,
    EngineInfo,
    EngineLoad,
    EngineRequest,
    EngineSummary,
    Finish,
    GenerationFailed,
    UnsupportedConstraint,
)
from inference.core.scheduling.admission import AdmissionQueue

from .choice import deltas
from .library import SUPPORTED, Library
from .model_folder import ModelFolder, folder_revision, read_folder
from .settings import TensorRtLlmSettings


def build(settings: TensorRtLlmSettings) -> TokenBackend:
    """The engine, stopped. Raises ValueError, naming the file, when the folder is not a model's."""
    for name in ("model_path", "draft_path"):
        path = getattr(settings, name)
        if path is not None and not path.is_dir():
            raise ValueError(f"{name}: {path.name!r} is not a folder")
    path = settings.model_path
    return TokenBackend(
        TensorRtLlmEngine(settings, read_folder(path)), lambda: load_text_model(path), default_model=path.name
    )


class TensorRtLlmEngine:
    """See inference.core.port.Engine.

    Each choice is a request of its own there: TensorRT-LLM gives out one answer only to a greedy request, and choices
    that resume differ in what they have emitted. They meet again in its prompt cache.
    """

    def __init__(self, settings: TensorRtLlmSettings, folder: ModelFolder) -> None:
        self._settings, self._folder = settings, folder
        self._context_length = min(settings.context_length, folder.positions)
        self._admission = AdmissionQueue(settings.max_running, settings.max_queued)
        self._meter = RateMeter()
        self._given = 0
        self._library: Library | None = None
        self._llm: Any = None
        self._info: EngineInfo | None = None
        self._queues: set[asyncio.Queue[EngineDelta | EngineError]] = set()
        # Cached prompts are found under a salt that no tenant can compute.
        self._key = secrets.token_bytes(32)

    async def start(self) -> None:
        """See Engine."""
        try:
            self._library, self._llm, revision = await asyncio.to_thread(self._load)
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"TensorRT-LLM cannot load {self._folder.path.name}: {error}") from error
        self._info = EngineInfo(
            engine="tensorrt_llm",
            model=self._folder.path.name,
            revision=revision,
            context_length=self._context_length,
            vocab_size=self._folder.vocab_size,
            constraints=SUPPORTED,
        )

    async def close(self) -> None:
        """See Engine."""
        llm, self._llm = self._llm, None
        for queue in self._queues:
            queue.put_nowait(EngineError("the engine was closed"))
        if llm is not None:
            await asyncio.to_thread(llm.shutdown)

    @property
    def info(self) -> EngineInfo:
        """See Engine."""
        if self._info is None:
            raise EngineError("the engine has not been started")
        return self._info

    def load(self) -> EngineLoad:
        """See Engine."""
        running = min(self._admission.inside, self._settings.max_running)
        return EngineLoad(
            queued=self._admission.inside - running,
            running=running,
            capacity=self._settings.max_running,
            tokens_per_second=self._meter.rate(time.monotonic()),
        )

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """See Engine."""
        self._check(request)
        submitted = time.monotonic()
        self._admission.enter(request.tenant, request.n, submitted, request.deadline)
        life = SignsOfLife(lambda: self._given)
        # Nothing tells a prompt that is read from one that waits where there is room for all.
        request.state.attach(progress=lambda: Progress(Stage.QUEUED) if self._waiting and life.moved() else None)
        drawn, first = 0, 0.0
        try:
            async with contextlib.aclosing(self._deltas(request)) as gained:
                async for delta in gained:
                    now = time.monotonic()
                    first = first or now
                    drawn += len(delta.tokens)
                    self._given += len(delta.tokens)
                    self._meter.add(len(delta.tokens), now)
                    yield delta
        finally:
            self._admission.leave(request.tenant, request.n, time.monotonic())
        ended = time.monotonic()
        yield EngineSummary(len(request.prompt), drawn, prefill_s=first - submitted, decode_s=ended - first)

    async def _deltas(self, request: EngineRequest) -> AsyncGenerator[EngineDelta, None]:
        """The choices' deltas as they come, until each has its last."""
        queue: asyncio.Queue[EngineDelta | EngineError] = asyncio.Queue()
        self._queues.add(queue)
        outputs: dict[int, Any] = {}
        readers: list[asyncio.Task[None]] = []

        def end_choice(index: int) -> None:
            if index in outputs:
                outputs[index].abort()
                queue.put_nowait(EngineDelta(index, finish=Finish.STOP))

        try:
            for index in range(request.n):
                if request.emitted and len(request.emitted[index]) >= request.sampling.max_tokens:
                    yield EngineDelta(index, finish=Finish.LENGTH)
                    continue
                outputs[index] = self._submit(request, index)
                readers.append(asyncio.create_task(self._read(outputs[index], request, index, queue)))
            request.state.attach(end_choice=end_choice)
            async for delta in _until_all_ended(queue, set(outputs)):
                yield delta
        finally:
            self._queues.discard(queue)
            for reader in readers:
                reader.cancel()
            for output in outputs.values():
                if not output.finished:
                    output.abort()

    def _submit(self, request: EngineRequest, index: int) -> Any:
        assert self._library is not None  # `_check` refuses before start
        emitted = request.emitted[index] if request.emitted else ()
        seed = request.sampling.seed
        # Without a seed TensorRT-LLM would draw the same for every request.
        seed = secrets.randbits(63) if seed is None else (seed + index) % 2**63
        try:
            params = self._library.sampling(request, index, seed, self._folder)
            return self._llm.generate_async(
                [*request.prompt, *emitted],
                sampling_params=params,
                streaming=True,
                cache_salt=self._salt(request.tenant),
            )
        except Exception as error:
            raise _failure(error) from error

    @property
    def _waiting(self) -> bool:
        return self._admission.inside > self._settings.max_running

    async def _read(
        self, output: Any, request: EngineRequest, index: int, queue: asyncio.Queue[EngineDelta | EngineError]
    ) -> None:
        try:
            async for delta in deltas(output, request, index, frozenset(self._folder.eos_ids)):
                queue.put_nowait(delta)
        except Exception as error:
            # An aborted choice ends without a finish; nobody waits for it.
            if index not in request.state.unwanted:
                queue.put_nowait(_failure(error))

    def _load(self) -> tuple[Library, Any, str]:
        library = Library()
        return library, library.load(self._settings), folder_revision(self._folder.path)

    def _salt(self, tenant: str) -> str:
        return hmac.new(self._key, tenant.encode(), hashlib.sha256).hexdigest()

    def _check(self, request: EngineRequest) -> None:
        """Raise what the port says of a request that could never be answered."""
        if self._llm is None:
            raise EngineError("TensorRT-LLM is not running")
        if not request.prompt:
            raise ValueError("prompt: at least one token is needed")
        if request.emitted and len(request.emitted) != request.n:
            raise ValueError(f"emitted: {len(request.emitted)} entries for {request.n} choices")
        if request.adapter is not None:
            raise AdapterNotFound(f"adapter {request.adapter!r}: this engine loads none")
        constraint = request.sampling.constraint
        if constraint is not None and any(request.emitted):
            # A guide starts anew with each request there: it would take the rest of an answer for a whole one.
            raise UnsupportedConstraint("a constrained answer cannot be continued on TensorRT-LLM")
        maximum = len(request.prompt) + max((len(tokens) for tokens in request.emitted), default=0)
        if maximum >= self._context_length:
            raise ContextTooLong(f"{maximum} tokens leave no room for an answer within {self._context_length}")


async def _until_all_ended(
    queue: asyncio.Queue[EngineDelta | EngineError], choices: set[int]
) -> AsyncGenerator[EngineDelta, None]:
    """What `choices` give, each to its first finish. Raises what comes as an error."""
    while choices:
        event = await queue.get()
        if isinstance(event, EngineError):
            raise event
        if event.index in choices:
            if event.finish is not None:
                choices.discard(event.index)
            yield event


def _failure(error: Exception) -> EngineError:
    """TensorRT-LLM's errors by their kind alone: their words may hold a prompt's."""
    return error if isinstance(error, EngineError) else GenerationFailed(f"TensorRT-LLM failed: {type(error).__name__}")
