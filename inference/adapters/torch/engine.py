"""Headrace's own engine: the port's Engine over a ModelRunner."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from inference.adapters.model_files import missing_model
from inference.adapters.tokenizer import load_text_model
from inference.core.blocks import BlockPool
from inference.core.generation_state import Progress, SignsOfLife
from inference.core.port import (
    ContextTooLong,
    EngineError,
    EngineEvent,
    EngineInfo,
    EngineLoad,
    EngineRequest,
    EngineSummary,
)
from inference.core.scheduling.admission import AdmissionQueue
from inference.core.scheduling.scheduled_step import Limits
from inference.core.scheduling.scheduler import Scheduler

from .config import TorchEngineConfig
from .constraints.grammar_cache import SUPPORTED, Grammars
from .cuda.launching import LaunchingRunner
from .cuda.overlapped import OverlappedStepper
from .drafting import Drafting
from .event_queue import EventQueue
from .generation import Generation
from .lora_registry import LoraRegistry
from .memory_check import check_memory
from .metrics import StepMetrics
from .runner import RunnerOptions, build_runner
from .runner_api import BLOCK_SIZE, ModelRunner
from .sampling_table import SamplingTable
from .speculative import Drafter, ModelDrafter, PromptLookup
from .stepping import Stepper
from .worker import Worker


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the engine gets its model from. Each is called once, on the engine's threads, and may take seconds.

    `vocabulary` gives the bytes of each token, none for control tokens.
    """

    runner: Callable[[], ModelRunner]
    draft: Callable[[], ModelRunner] | None
    vocabulary: Callable[[], Sequence[bytes]]


class TorchEngine:
    """See inference.core.port.Engine; loads LoRA adapters while serving as well (inference.core.lora_port)."""

    def __init__(self, config: TorchEngineConfig, parts: Parts) -> None:
        self._config = config
        self._parts = parts
        self._admission = AdmissionQueue(config.max_running, config.max_queued)
        self._worker: Worker | None = None
        self._stepper: Stepper | None = None
        self._runner: ModelRunner | None = None
        self._grammars: Grammars | None = None
        self._adapters: LoraRegistry | None = None

    async def start(self) -> None:
        """See Engine."""
        worker = self._worker = Worker(self._load)
        self._stepper = await worker.start()
        runner = self._serving()
        spec = runner.spec
        self._grammars = Grammars(self._parts.vocabulary, spec.vocab_size, spec.eos_ids, self._config.threads)
        self._grammars.warm()
        self._adapters = LoraRegistry(
            self._config.adapter_folder,
            lambda path: worker.call(lambda: runner.load_adapter(path)),
            lambda slot: worker.call(lambda: runner.unload_adapter(slot)),
        )
        await self._adapters.load_all()

    async def close(self) -> None:
        """See Engine."""
        if self._grammars is not None:
            self._grammars.close()
        if self._worker is not None:
            await self._worker.close()

    @property
    def info(self) -> EngineInfo:
        """See Engine."""
        spec, kv = self._serving().spec, self._config.kv_precision
        return EngineInfo(
            engine="torch",
            model=spec.name,
            # What changes an answer's tokens is part of it: another replica of the same revision may continue a text.
            revision=f"{spec.revision}-{spec.precision}" + (f"-kv-{kv}" if kv != "auto" else ""),
            context_length=self._context_length(),
            vocab_size=spec.vocab_size,
            constraints=SUPPORTED,
            adapters=self._adapters.names if self._adapters is not None else (),
        )

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """See Engine."""
        self._check(request)
        assert self._worker is not None  # _check refuses before start
        assert self._grammars is not None
        assert self._adapters is not None
        now = time.monotonic()
        self._admission.enter(request.tenant, request.n, now, request.deadline)
        generation = Generation(request, EventQueue(), now)
        self._say_progress(generation)
        added = False
        try:
            constraint = request.sampling.constraint
            if constraint is not None:
                generation.grammar = await self._grammars.compile(constraint, request.tenant)
            with self._adapters.using(request.adapter) as generation.adapter_slot:
                try:
                    self._worker.add(generation)
                    added = generation.handed_over = True
                    request.state.attach(end_choice=partial(self._worker.end_choice, generation))
                    while True:
                        event = await generation.event_queue.get()
                        if isinstance(event, EngineSummary):
                            added = False
                        yield event
                        if not added:
                            return
                finally:
                    if added:
                        self._worker.cancel(generation)
        finally:
            self._admission.leave(request.tenant, request.n, time.monotonic())

    def load(self) -> EngineLoad:
        """See Engine."""
        if self._stepper is None:
            return EngineLoad(0, 0, self._config.max_running, 0.0)
        scheduler = self._stepper.scheduler
        running = len(scheduler.running)
        return EngineLoad(
            queued=max(0, self._admission.inside - running),
            running=running,
            capacity=self._config.max_running,
            tokens_per_second=self._stepper.meter.rate(time.monotonic()),
            kv_used=scheduler.pool.held / scheduler.pool.num_blocks,
            kv_waste=scheduler.waste(),
        )

    async def load_adapter(self, name: str, path: str) -> None:
        """See LoraHost."""
        self._serving()
        assert self._adapters is not None  # there is one once serving
        await self._adapters.load(name, path)

    async def unload_adapter(self, name: str) -> None:
        """See LoraHost."""
        self._serving()
        assert self._adapters is not None  # as above
        await self._adapters.unload(name)

    def _say_progress(self, generation: Generation) -> None:
        assert self._stepper is not None  # as in `generate`
        stepper = self._stepper
        life = SignsOfLife(lambda: stepper.steps)

        def progress() -> Progress | None:
            # While its grammar is made there need be no steps.
            return generation.progress(stepper.scheduler.table) if life.moved() or not generation.handed_over else None

        generation.request.state.attach(progress=progress)

    def _serving(self) -> ModelRunner:
        if self._runner is None:
            raise EngineError("the engine has not been started")
        return self._runner

    def _context_length(self) -> int:
        assert self._stepper is not None  # only asked once serving
        return self._stepper.scheduler.context_length

    def _check(self, request: EngineRequest) -> None:
        """Raise ContextTooLong or ValueError for a request that could never be answered."""
        self._serving()
        if not request.prompt:
            raise ValueError("prompt: at least one token is needed")
        if request.emitted and len(request.emitted) != request.n:
            raise ValueError(f"emitted: {len(request.emitted)} entries for {request.n} choices")
        maximum = len(request.prompt) + max((len(tokens) for tokens in request.emitted), default=0)
        if maximum >= self._context_length():
            raise ContextTooLong(f"{maximum} tokens leave no room for an answer within {self._context_length()}")

    def _load(self) -> tuple[Stepper, Callable[[], None]]:
        """Load everything; on the engine's thread."""
        config = self._config
        runner = self._parts.runner()
        spec = runner.spec
        context = min(spec.context_length, config.context_length or spec.context_length)
        pool = BlockPool(runner.num_blocks, runner.block_size, share_prefixes=config.prefix_cache)
        scheduler = Scheduler(Limits(config.max_running, config.step_tokens, context, config.step_ms / 1000), pool)
        request_rows = config.max_running + config.max_queued
        sampling = SamplingTable(request_rows)
        drafter = self._drafter(runner, sampling)
        drafting = Drafting(drafter, sampling, request_rows) if drafter is not None else None
        self._runner = runner

        def free() -> None:
            runner.close()
            if drafter is not None:
                drafter.close()

        if drafting is None and isinstance(runner, LaunchingRunner):
            stepper: Stepper = OverlappedStepper(runner, scheduler, sampling, request_rows)
        else:
            stepper = Stepper(runner, scheduler, sampling, request_rows, drafting)
        stepper.observer = StepMetrics()
        return stepper, free

    def _drafter(self, runner: ModelRunner, sampling: SamplingTable) -> Drafter | None:
        if self._parts.draft is not None:
            draft = self._parts.draft()
            if draft.spec.vocab_size != runner.spec.vocab_size or draft.num_blocks != runner.num_blocks:
                raise ValueError(f"draft model {draft.spec.name!r} has another vocabulary than {runner.spec.name!r}")
            return ModelDrafter(draft, self._config.max_running, sampling)
        return PromptLookup(self._config.max_running) if self._config.speculation == "prompt_lookup" else None


def build(config: TorchEngineConfig) -> TorchEngine:
    """The engine of `config`, stopped. Raises ValueError, naming the setting, for what is not there or cannot fit."""
    for name in ("model_path", "draft_path", "adapter_folder"):
        path = getattr(config, name)
        if path is not None and not path.exists():
            raise ValueError(f"{name}: {missing_model(path)}")
    check_memory(config)
    blocks = config.kv_tokens // BLOCK_SIZE

    def options(**which: object) -> RunnerOptions:
        names = ("device", "precision", "kv_precision", "threads", "cpu_kernels")
        common = {name: getattr(config, name) for name in names}
        return RunnerOptions(**common, num_blocks=blocks, **which)  # type: ignore[arg-type]  # checked by the tests

    def vocabulary() -> Sequence[bytes]:
        tokenizer = load_text_model(config.model_path).tokenizer
        return [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]

    runner = partial(build_runner, options(path=config.model_path, sha256=config.model_sha256))
    draft = None
    if config.draft_path is not None:
        draft = partial(build_runner, options(path=config.draft_path, sha256=config.draft_sha256))
    return TorchEngine(config, Parts(runner, draft, vocabulary))
