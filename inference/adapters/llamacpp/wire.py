"""What llama.cpp's completion handler is asked and answers, as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from inference.adapters.llamacpp.schema import SchemaError, parse_schema
from inference.core.port import ConstraintKind, EngineRequest, SamplingParams, UnsupportedConstraint

# Enough alternatives for the confidence figures, at 3% of a step.
_ALTERNATIVES = 5
# llama.cpp takes this seed for "any".
_ANY_SEED = 0xFFFFFFFF


class Alternative(msgspec.Struct):
    """A token and its natural log probability."""

    id: int
    logprob: float


class Drawn(msgspec.Struct):
    """A drawn token; `top_logprobs` best first."""

    id: int
    logprob: float
    top_logprobs: list[Alternative] = []


class Logprobs(msgspec.Struct):
    """The tokens behind a chunk's text."""

    content: list[Drawn] = []


class Part(msgspec.Struct):
    """A choice's part of a chunk; there is one choice."""

    text: str = ""
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class Timings(msgspec.Struct):
    """Counts, and durations in milliseconds."""

    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


class PromptProgress(msgspec.Struct):
    """Tokens of the prompt that were read, of all."""

    total: int = 0
    processed: int = 0

    @property
    def share(self) -> float:
        """0 to 1."""
        return min(1.0, self.processed / self.total) if self.total else 0.0


class Failure(msgspec.Struct):
    """An error's code, as in HTTP, and message."""

    code: int = 500
    message: str = ""


class Chunk(msgspec.Struct):
    """One call of the callback."""

    choices: list[Part] = []
    timings: Timings | None = None
    error: Failure | None = None
    prompt_progress: PromptProgress | None = None


decode_chunk = msgspec.json.Decoder(Chunk).decode


def encode_request(request: EngineRequest, index: int) -> bytes:
    """The body that asks for choice `index`. Raises UnsupportedConstraint."""
    sampling = request.sampling
    emitted = request.emitted[index] if request.emitted else ()
    body: dict[str, Any] = {
        "prompt": [*request.prompt, *emitted],
        "stream": True,
        # Progress gives prefill its points at which to cancel.
        "return_progress": True,
        "timings_per_token": True,
        "max_tokens": sampling.max_tokens - len(emitted),
        "logprobs": max(_ALTERNATIVES, sampling.logprobs or 0),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_penalty": sampling.repetition_penalty,
        # All that there is, where the default looks back 64 tokens.
        "repeat_last_n": len(request.prompt) + sampling.max_tokens,
        # The usual order; llama.cpp's own draws the temperature last.
        "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"],
        "logit_bias": [[token, bias] for token, bias in sampling.logit_bias.items()],
        "ignore_eos": sampling.ignore_eos,
        "seed": _seed(sampling.seed, index),
        **_constraint(sampling),
    }
    return msgspec.json.encode(body)


def _seed(seed: int | None, index: int) -> int:
    return _ANY_SEED if seed is None else (seed + index) % _ANY_SEED


def _constraint(sampling: SamplingParams) -> dict[str, Any]:
    constraint = sampling.constraint
    if constraint is None:
        return {}
    if constraint.kind is ConstraintKind.JSON_OBJECT:
        schema: dict[str, Any] = {"type": "object"}
    else:
        try:
            schema = parse_schema(constraint.source)
        except SchemaError as error:
            raise UnsupportedConstraint(f"json_schema: {error}") from error
    # Without this the grammar allows any white space, and a small model may draw nothing else to the end.
    return {"json_schema": schema | {"x-guidance": {"whitespace_flexible": False}}}
