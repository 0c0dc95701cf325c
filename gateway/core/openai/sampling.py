"""What chat and plain completions have in common: how tokens are drawn, and fields that change nothing here."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from gateway.core.openai.effects import NO_EFFECT, OURS, Unsupported
from headrace.common.v1.generation_pb2 import Sampling
from mesh.contract_limits import BIAS, MAX_CHOICES, MAX_MODEL_CHARACTERS, MAX_STOP_CHARACTERS, MAX_STOPS, SAMPLING
from mesh.errors import InvalidArgument

_INT32: Final = 2**31 - 1


def _within(name: str, description: str | None = None) -> Meta:
    """The contract's limit of a field, in a type's terms."""
    limit = SAMPLING[name]
    high = None if limit.high == math.inf else limit.high
    if limit.above:
        return Meta(gt=limit.low, le=high, description=description)
    return Meta(ge=limit.low, le=high, description=description)


Model = Annotated[
    str, Meta(min_length=1, max_length=MAX_MODEL_CHARACTERS, description="A model's public name, as /v1/models has it.")
]
Temperature = Annotated[float, _within("temperature", "0 always takes the likeliest token.")]
TopP = Annotated[float, _within("top_p", "Draw from the likeliest tokens of this mass together.")]
TokenCount = Annotated[int, Meta(ge=1, le=_INT32)]
TokenId = Annotated[int, Meta(ge=0, le=_INT32)]
Choices = Annotated[int, Meta(ge=1, le=MAX_CHOICES, description="Answers wanted.")]
StopString = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARACTERS)]
Stop = StopString | Annotated[list[StopString], Meta(max_length=MAX_STOPS)]
Bias = Annotated[float, Meta(ge=BIAS.low, le=BIAS.high)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1, description="Same seed, same text.")]
TopK = Annotated[int, Meta(ge=0, le=_INT32, description="Draw from so many tokens; 0 is off.")]
Repetition = Annotated[float, _within("repetition_penalty", "1 is off.")]
Metadata = Annotated[dict[str, str], Meta(max_length=16)]


class StreamOptions(Struct, forbid_unknown_fields=True):
    """What a stream holds besides the answer."""

    include_usage: Annotated[bool, Meta(description="Give the usage in a chunk of its own at the end.")] | None = None
    include_obfuscation: Annotated[bool | None, NO_EFFECT, Meta(description="Nothing is padded.")] = None


class CommonRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """The fields that both kinds of request have."""

    model: Model
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TokenCount | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    n: Choices | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    presence_penalty: Annotated[float, _within("presence_penalty")] | None = None
    frequency_penalty: Annotated[float, _within("frequency_penalty")] | None = None
    logit_bias: dict[TokenId, Bias] | None = None
    user: Annotated[str, Meta(max_length=512)] | None = None
    top_k: Annotated[TopK | None, OURS] = None
    min_p: Annotated[Annotated[float, _within("min_p")] | None, OURS] = None
    repetition_penalty: Annotated[Annotated[float, Meta(gt=0, le=10)] | None, OURS, Meta(description="1 is off.")] = (
        None
    )
    # OpenAI's, accepted because answering without them is no other answer.
    metadata: Annotated[Metadata | None, NO_EFFECT] = None
    store: Annotated[Literal[False] | None, NO_EFFECT, Meta(description="Nothing is stored.")] = None
    service_tier: Annotated[Literal["auto", "default"] | None, NO_EFFECT] = None
    safety_identifier: Annotated[str | None, NO_EFFECT] = None
    prompt_cache_key: Annotated[str | None, NO_EFFECT] = None
    prompt_cache_options: Annotated[dict[str, Any] | None, NO_EFFECT] = None
    prompt_cache_retention: Annotated[str | None, NO_EFFECT] = None
    # OpenAI's that would change the answer.
    moderation: Unsupported = None
    reasoning_effort: Unsupported = None
    verbosity: Unsupported = None


_AS_THEY_ARE: Final = (
    *("temperature", "top_p", "presence_penalty", "frequency_penalty"),
    *("top_k", "min_p", "repetition_penalty", "logit_bias"),
)


def to_sampling(request: CommonRequest) -> Sampling:
    """The common fields in the contract's terms. Raises InvalidArgument."""
    fields: dict[str, Any] = {"n": request.n or 1}
    for name in _AS_THEY_ARE:
        value = getattr(request, name)
        if value is not None:
            fields[name] = value
    if request.max_tokens is not None:
        fields["max_tokens"] = request.max_tokens
    if request.seed is not None:
        # The contract's seeds are unsigned; each of OpenAI's signed ones keeps a seed of its own.
        fields["seed"] = request.seed & (2**64 - 1)
    if request.stop is not None:
        fields["stop"] = [request.stop] if isinstance(request.stop, str) else request.stop
    return Sampling(**fields)


def check_stream_options(request: CommonRequest) -> None:
    """Raises InvalidArgument where options are given for a stream that is not asked for."""
    if request.stream_options is not None and not request.stream:
        raise InvalidArgument(
            "Invalid 'stream_options': only allowed together with 'stream': true.", field="stream_options"
        )


def includes_usage(request: CommonRequest) -> bool:
    """Whether the stream ends in a chunk with the usage."""
    return bool(request.stream_options and request.stream_options.include_usage)
