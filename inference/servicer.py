"""headrace.inference.v1.Inference over whatever engine this node runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from headrace.common.v1.generation_pb2 import ChoiceDelta, Generation, GenerationProgress, GenerationSummary
from headrace.inference.v1 import inference_pb2 as pb
from headrace.inference.v1.inference_pb2_grpc import InferenceServicer
from inference.adapters.metrics import GenerationMetrics
from inference.core.answer import merge
from inference.core.chat_port import ChatEngine, ChatEvent, ChatRequest
from inference.core.checks import check_generation
from inference.core.continuing import check_continuation
from inference.core.lora_port import LoraHost
from inference.core.outbox import Outbox
from inference.core.port import EngineLoad, GenerationFailed
from inference.core.self_check import SelfCheck
from inference.failures import as_loading_error, as_mesh_error
from mesh.errors import DeadlineExceeded, InvalidArgument, NotFound, Unavailable, Unimplemented

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_DEFAULT_INTERVAL_S = 0.25
_MIN_INTERVAL_S = 0.01
# Tokens wait for company once this many streams are open, and the longer the more there are.
_CALM_STREAMS = 4
_GATHER_PER_STREAM_S = 0.002
_GATHER_AT_MOST_S = 0.020
# What a message may gather while its caller takes none; further on the engine waits. gRPC refuses messages of 4 MB.
_GATHERED_BYTES = 256 << 10


class Servicer(InferenceServicer):
    """One node's contract.

    `tokenize` and `adapters` are None where the engine has none. `failed` is called with an error that leaves the
    engine broken; `check` hears how generations end; `draining` says whether this process is about to end.
    """

    def __init__(
        self,
        *,
        name: str,
        engine_name: str,
        engine: ChatEngine,
        tokenize: Callable[[Generation], Awaitable[tuple[int, ...]]] | None,
        adapters: LoraHost | None,
        failed: Callable[[Exception], None],
        check: SelfCheck,
        draining: Callable[[], bool],
    ) -> None:
        self._name = name
        self._engine_name = engine_name
        self._engine = engine
        self._tokenize = tokenize
        self._adapters = adapters
        self._failed = failed
        self._check = check
        self._draining = draining
        self._streams = 0
        self._loaded = False
        self._watches_end = asyncio.Event()

    def loaded(self) -> None:
        """The engine has started."""
        self._loaded = True

    async def end_watches(self, _deadline_s: float) -> None:
        """End the watches: they would outlive every other call."""
        self._watches_end.set()

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> AsyncIterator[pb.GenerateResponse]:
        """See the contract."""
        card = self._card_for(request.generation)
        outbox: Outbox[ChatEvent] | None = None
        metrics, outcome = GenerationMetrics(), "cancelled"
        self._streams += 1
        try:
            check_generation(request.generation, card.capabilities)
            check_continuation(request.generation, card.capabilities)
            seconds = context.time_remaining()
            deadline = None if seconds is None else time.monotonic() + seconds
            asked = ChatRequest(request.context, request.generation, deadline)
            outbox = Outbox(self._engine.generate(asked), weigh=_bytes_of, most=_GATHERED_BYTES)
            ends = None if seconds is None else asyncio.get_running_loop().time() + seconds
            gather_s = 0.0
            while gathered := await _take(outbox, gather_s, ends):
                response = self._response(gathered, card)
                metrics.sent(response)
                yield response
                gather_s = self._gather_s()
            outcome = "finished"
            self._check.answered()
        except Exception as error:
            outcome = "failed"
            if isinstance(error, GenerationFailed):
                self._check.failed()
            raise as_mesh_error(error, self._failed) from error
        finally:
            self._streams -= 1
            metrics.ended(outcome)
            if outbox is not None:
                await outbox.closed()

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:
        """See the contract."""
        return pb.DescribeResponse(models=[self._card()])

    async def WatchLoad(self, request: pb.WatchLoadRequest, context: Context) -> AsyncIterator[pb.WatchLoadResponse]:
        """See the contract."""
        interval = request.interval.ToNanoseconds() / 1e9 if request.HasField("interval") else _DEFAULT_INTERVAL_S
        interval = max(interval, _MIN_INTERVAL_S)
        last: pb.WatchLoadResponse | None = None
        while True:
            report = self._load()
            if report != last:
                last = report
                yield report
            if self._watches_end.is_set():
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._watches_end.wait(), interval)

    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeResponse:
        """See the contract."""
        if self._tokenize is None:
            raise Unimplemented(f"engine {self._engine_name!r} does not show its tokens")
        card = self._card_for(request.generation)
        try:
            check_generation(request.generation, card.capabilities)
            return pb.TokenizeResponse(token_ids=await self._tokenize(request.generation))
        except ValueError as error:
            raise as_mesh_error(error, self._failed) from error

    async def LoadAdapter(self, request: pb.LoadAdapterRequest, context: Context) -> pb.LoadAdapterResponse:
        """See the contract."""
        adapters = self._with_adapters()
        for field in ("name", "path"):
            if not getattr(request, field):
                raise InvalidArgument(f"{field}: missing", field=field)
        try:
            await adapters.load_adapter(request.name, request.path)
        except Exception as error:
            raise as_loading_error(error, self._failed) from error
        return pb.LoadAdapterResponse()

    async def UnloadAdapter(self, request: pb.UnloadAdapterRequest, context: Context) -> pb.UnloadAdapterResponse:
        """See the contract."""
        adapters = self._with_adapters()
        try:
            await adapters.unload_adapter(request.name)
        except Exception as error:
            raise as_mesh_error(error, self._failed) from error
        return pb.UnloadAdapterResponse()

    def _card(self) -> pb.ModelCard:
        if not self._loaded:
            raise Unavailable("the model is still loading", reason="MODEL_LOADING", retry_after_s=1.0)
        card = pb.ModelCard()
        card.CopyFrom(self._engine.card)
        card.name, card.engine = self._name, self._engine_name
        return card

    def _card_for(self, generation: Generation) -> pb.ModelCard:
        card = self._card()
        # A node serves one model: a caller that leaves the name out means it.
        if generation.model not in ("", card.name):
            field = "generation.model"
            raise NotFound(f"{field}: this node serves {card.name!r}", reason="MODEL_NOT_FOUND", field=field)
        return card

    def _response(self, gathered: list[ChatEvent], card: pb.ModelCard) -> pb.GenerateResponse:
        response = pb.GenerateResponse(deltas=merge([event for event in gathered if isinstance(event, ChoiceDelta)]))
        last = gathered[-1]
        if isinstance(last, GenerationProgress):
            response.progress.CopyFrom(last)
        if isinstance(last, GenerationSummary):
            response.summary.CopyFrom(last)
            response.summary.model = last.model or card.name
            response.summary.revision = last.revision or card.revision
        return response

    def _gather_s(self) -> float:
        if self._streams <= _CALM_STREAMS:
            return 0.0
        return min(_GATHER_AT_MOST_S, _GATHER_PER_STREAM_S * self._streams)

    def _load(self) -> pb.WatchLoadResponse:
        load = self._engine.load() if self._loaded else EngineLoad(0, 0, 0, 0.0)
        return pb.WatchLoadResponse(
            queued=load.queued,
            running=load.running,
            capacity=load.capacity,
            tokens_per_second=round(load.tokens_per_second, 1),
            kv_used=round(load.kv_used, 3),
            kv_waste=round(load.kv_waste, 3),
            draining=self._draining(),
        )

    def _with_adapters(self) -> LoraHost:
        self._card()
        if self._adapters is None:
            raise Unimplemented(f"engine {self._engine_name!r} loads no adapters")
        return self._adapters


def _bytes_of(event: ChatEvent) -> int:
    # What a message costs in memory beside its content.
    return event.ByteSize() + 256


async def _take(outbox: Outbox[ChatEvent], gather_s: float, ends: float | None) -> list[ChatEvent]:
    try:
        async with asyncio.timeout_at(ends):
            return await outbox.take(gather_s)
    except TimeoutError as error:
        raise DeadlineExceeded("the request's time is over") from error
