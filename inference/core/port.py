"""The engine port: what an inference node asks of whatever runs its model.

Text stays outside. An engine is given token ids and gives token ids back; templates, detokenizing and stop strings are
the node's business. That keeps engines comparable and makes resuming on another one exact.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from inference.core.generation_state import GenerationState


class Finish(enum.Enum):
    """Why a choice ended. A choice that was cut has none."""

    STOP = "stop"
    LENGTH = "length"


class ConstraintKind(enum.Enum):
    """The languages that a constraint can be written in."""

    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    GRAMMAR = "grammar"
    # xgrammar's structural tag format, as JSON: tool calls.
    STRUCTURAL_TAG = "structural_tag"


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the text of an answer must satisfy."""

    kind: ConstraintKind
    source: str = ""
    # What it is called in the contract; of a structural tag, each of the schemas, expressions and grammars in it, in
    # their order.
    places: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are drawn; every field is filled in and within its range."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    ignore_eos: bool = False
    # None: no log probabilities. n: the drawn token's and the n best alternatives'.
    logprobs: int | None = None
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One generation.

    `prompt` holds every token before the answer. `emitted[i]` holds the tokens that choice i has already emitted
    elsewhere: the engine continues after them, counts them against max_tokens and the penalties, and does not emit
    them again. It is empty, or has `n` entries.
    """

    request_id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    n: int = 1
    emitted: tuple[tuple[int, ...], ...] = ()
    # Isolates fairness and the prompt cache.
    tenant: str = "default"
    # Larger is served first.
    priority: int = 0
    adapter: str | None = None
    # Of time.monotonic(): nobody waits for what comes later.
    deadline: float | None = None
    state: GenerationState = field(default_factory=GenerationState, compare=False)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A drawn token's natural log probability and the best alternatives, best first; the node adds the drawn one."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure the model was, over the tokens that this engine drew. Natural logarithms; entropy in nats."""

    mean_logprob: float
    min_logprob: float
    mean_entropy: float
    mean_margin: float
    tokens: int


@dataclass(frozen=True, slots=True)
class EngineDelta:
    """What one choice gained. With `finish` set it is the choice's last. The end-of-text token is not given out."""

    index: int
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None
    confidence: Confidence | None = None


@dataclass(frozen=True, slots=True)
class EngineSummary:
    """The last event of a generation. Durations in seconds."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


EngineEvent = EngineDelta | EngineSummary


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """A moment's load. Shares are 0 to 1."""

    queued: int
    running: int
    capacity: int
    tokens_per_second: float
    kv_used: float = 0.0
    kv_waste: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine serves. `revision` changes whenever weights or tokenizer do."""

    engine: str
    model: str
    revision: str
    context_length: int
    vocab_size: int
    constraints: frozenset[ConstraintKind] = frozenset()
    adapters: tuple[str, ...] = ()


class EngineError(Exception):
    """An engine's refusal or failure; `reason` is the word for it in the mesh.

    The class itself says that the whole engine is broken; what concerns one generation has a class of its own.
    """

    reason = "ENGINE_FAILED"


class EngineOverloaded(EngineError):
    """The queue is full, or too long for the request's deadline. Nothing was admitted."""

    reason = "QUEUE_FULL"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ContextTooLong(EngineError):
    """The prompt leaves no room for an answer."""

    reason = "CONTEXT_TOO_LONG"


class UnsupportedConstraint(EngineError):
    """The constraint is malformed, or uses what the engine cannot hold to; the message names it.

    `place` is the field of the contract that it stands in, where the engine knows it.
    """

    reason = "UNSUPPORTED_CONSTRAINT"

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place


class GenerationFailed(EngineError):
    """One generation alone has failed, through no fault of its caller; the engine goes on."""

    reason = "GENERATION_FAILED"


class NonFiniteLogits(GenerationFailed):
    """The model gave this generation logits that are not finite: there is nothing to draw from."""

    reason = "NON_FINITE_LOGITS"


class AdapterNotFound(EngineError):
    """No LoRA adapter of that name is loaded."""

    reason = "ADAPTER_NOT_FOUND"


class Engine(Protocol):
    """A running model. Everything is called on one event loop; an engine brings its own threads.

    Built stopped; `start` loads and may take seconds; `close` may be called at any time and twice, and ends what is
    still running with EngineError.
    """

    async def start(self) -> None:
        """Load and warm up. Raises EngineError or ValueError with words that say what to do."""
        ...

    async def close(self) -> None:
        """Stop, free everything."""
        ...

    @property
    def info(self) -> EngineInfo:
        """Known once started."""
        ...

    def generate(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
        """Stream a generation: deltas, then exactly one summary.

        Raises EngineError, before the first event where the request itself is at fault; GenerationFailed at any time,
        which says nothing of other generations. Closing the iterator
        (`aclose`, or cancelling the task that reads it) frees the request's slot and memory within one step.
        Events wait in a queue that holds at most `max_tokens` of one request, so a slow reader stalls no other.
        """
        ...

    def load(self) -> EngineLoad:
        """The load right now. Cheap."""
        ...
