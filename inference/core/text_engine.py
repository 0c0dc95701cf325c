"""Makes an engine on token ids one that takes messages: template and tokenizer before it, detokenizer behind it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from typing import cast

from headrace.common.v1 import generation_pb2 as pb
from headrace.inference.v1.inference_pb2 import Capabilities, ModelCard
from inference.core.answer import Answer, ResumeMismatch, to_summary
from inference.core.awaiting import with_progress
from inference.core.chat_port import ChatEvent, ChatRequest
from inference.core.checks import RequestError
from inference.core.generation_state import Progress, Stage
from inference.core.port import (
    ConstraintKind,
    Engine,
    EngineEvent,
    EngineLoad,
    EngineOverloaded,
    EngineRequest,
    EngineSummary,
    SamplingParams,
    UnsupportedConstraint,
)
from inference.core.requests import TextRequest, calls_tools, to_text_request, tokenize
from inference.core.text import TextModel

# A longer prompt is tokenized on a thread: it would hold up every other stream for milliseconds.
_LONG_PROMPT_BYTES = 16_384
_PROBE_S = 60.0
_STAGES = {
    Stage.QUEUED: pb.GenerationProgress.STAGE_QUEUED,
    Stage.PREFILL: pb.GenerationProgress.STAGE_PREFILL,
}


class TextEngine:
    """See inference.core.chat_port.ChatEngine; takes token prompts and `resume` as well.

    Raises RequestError where the request is at fault, and passes the engine's EngineError on.
    """

    def __init__(self, engine: Engine, load_text: Callable[[], TextModel]) -> None:
        self._engine = engine
        self._load_text = load_text
        self._text: TextModel | None = None

    async def start(self) -> None:
        """Load both sides. Raises EngineError or ValueError."""
        self._text = await asyncio.to_thread(self._load_text)
        await self._engine.start()

    async def close(self) -> None:
        """Stop the engine."""
        await self._engine.close()

    @property
    def card(self) -> ModelCard:
        """What is served."""
        info = self._engine.info
        return ModelCard(
            revision=info.revision,
            context_length=info.context_length,
            capabilities=Capabilities(
                chat=self._ready.template is not None,
                completion=True,
                tools=self._ready.template is not None and calls_tools(info),
                json_schema=ConstraintKind.JSON_SCHEMA in info.constraints,
                logprobs=True,
                resume=True,
                continue_text=True,
                seed=True,
            ),
            adapters=info.adapters,
        )

    def load(self) -> EngineLoad:
        """The engine's load."""
        return self._engine.load()

    async def probe(self) -> None:
        """Ask for one token, as nobody's request. Raises EngineError when the engine gives none.

        One that is too busy to say within a minute, or to take the question, is not one that fails.
        """
        sampling = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)
        # In no prompt cache, whatever was asked before.
        tenant = f"probe/{secrets.token_hex(8)}"
        asked = EngineRequest("probe", (0,), sampling, tenant=tenant)
        with contextlib.suppress(EngineOverloaded, TimeoutError):
            async with asyncio.timeout(_PROBE_S):
                async for _event in self._engine.generate(asked):
                    pass

    async def tokenize(self, generation: pb.Generation) -> tuple[int, ...]:
        """The prompt's tokens as `generate` sees them. Raises RequestError."""
        if generation.prompt.ByteSize() < _LONG_PROMPT_BYTES:
            return tokenize(generation, self._engine.info, self._ready)
        return await asyncio.to_thread(tokenize, generation, self._engine.info, self._ready)

    async def generate(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        """Stream an answer; see ChatEngine."""
        asked = await self._check(request)
        answer, state = _begin(asked, self._ready), asked.engine.state
        for delta in answer.ended_before:
            state.end_choice(delta.index)
            yield delta
        if not answer.cut_short:
            async with contextlib.aclosing(with_progress(self._events(asked), state)) as events:
                async for event in events:
                    if isinstance(event, Progress):
                        yield _to_progress(event)
                        continue
                    if isinstance(event, EngineSummary):
                        # Of choices that a stop string ended the engine may have drawn more than was given.
                        yield to_summary(replace(event, completion_tokens=answer.completion_tokens))
                        return
                    gained = answer.take(event)
                    if gained is not None:
                        yield gained
                    if answer.over(event.index):
                        state.end_choice(event.index)
                    if answer.cut_short:
                        # Stop strings ended what the engine would go on with: leaving frees its slots.
                        break
        yield to_summary(answer.own_summary())

    async def _events(self, asked: TextRequest) -> AsyncGenerator[EngineEvent, None]:
        events = cast("AsyncGenerator[EngineEvent, None]", self._engine.generate(asked.engine))
        async with contextlib.aclosing(events):
            try:
                async for event in events:
                    yield event
            except UnsupportedConstraint as error:
                if asked.calls is None and not error.place:
                    raise
                field = error.place or "generation.prompt.chat.tools"
                raise RequestError(field, str(error), reason=error.reason) from error

    async def _check(self, request: ChatRequest) -> TextRequest:
        arguments = (request, self._engine.info, self._ready)
        if request.generation.ByteSize() < _LONG_PROMPT_BYTES:
            return to_text_request(*arguments)
        return await asyncio.to_thread(to_text_request, *arguments)

    @property
    def _ready(self) -> TextModel:
        if self._text is None:
            raise RuntimeError("not started")
        return self._text


def _to_progress(progress: Progress) -> pb.GenerationProgress:
    return pb.GenerationProgress(stage=_STAGES[progress.stage], prompt_read=progress.read)


def _begin(asked: TextRequest, text: TextModel) -> Answer:
    try:
        return Answer(asked, text.tokenizer.token_bytes)
    except ResumeMismatch as error:
        raise RequestError("generation.resume", str(error)) from error
