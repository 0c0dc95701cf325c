"""What can be told to be wrong with a generation in the contract's own terms, before anybody else is asked."""

from __future__ import annotations

import math
from typing import Final

from gateway.core.openai.sampling import MAX_CHOICES, MAX_STOPS
from gateway.core.text_checks import check_texts
from headrace.common.v1.chat_pb2 import ROLE_UNSPECIFIED, ChatPrompt
from headrace.common.v1.generation_pb2 import Generation, Sampling
from mesh.errors import InvalidArgument

_SAMPLING: Final = "generation.sampling"
_CHAT: Final = "generation.prompt.chat"
_RANGES: Final = {
    "temperature": (0.0, 2.0),
    "top_p": (math.ulp(0.0), 1.0),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (math.ulp(0.0), 10.0),
    "top_k": (0, math.inf),
    "max_tokens": (1, math.inf),
}
_MAX_MODEL: Final = 256
_MAX_ALTERNATIVES: Final = 20


def check_generation(generation: Generation) -> None:
    """Raises InvalidArgument, which names the field as the contract spells it."""
    if not 0 < len(generation.model) <= _MAX_MODEL:
        raise _wrong("generation.model", f"a name of at most {_MAX_MODEL} characters is needed")
    if generation.resume:
        raise _wrong("generation.resume", "answers are resumed inside the mesh only")
    kind = generation.prompt.WhichOneof("prompt")
    if kind is None:
        raise _wrong("generation.prompt", "a prompt is needed")
    if kind == "chat":
        _check_chat(generation.prompt.chat)
    elif not (generation.prompt.text or generation.prompt.tokens.token_ids):
        raise _wrong(f"generation.prompt.{kind}", "empty")
    _check_sampling(generation.sampling)
    check_texts(generation)


def _check_chat(chat: ChatPrompt) -> None:
    if not chat.messages:
        raise _wrong(f"{_CHAT}.messages", "empty")
    for i, message in enumerate(chat.messages):
        if message.role == ROLE_UNSPECIFIED:
            raise _wrong(f"{_CHAT}.messages[{i}].role", "a role is needed")


def _check_sampling(sampling: Sampling) -> None:
    for name, value in ((field.name, value) for field, value in sampling.ListFields()):
        if name in _RANGES:
            low, high = _RANGES[name]
            if not low <= value <= high:
                raise _wrong(f"{_SAMPLING}.{name}", f"{value:g} is out of range")
    if not 0 <= sampling.n <= MAX_CHOICES:
        raise _wrong(f"{_SAMPLING}.n", f"1 to {MAX_CHOICES}, or 0 for 1")
    if not 0 <= sampling.top_logprobs <= _MAX_ALTERNATIVES:
        raise _wrong(f"{_SAMPLING}.top_logprobs", f"0 to {_MAX_ALTERNATIVES}")
    if len(sampling.stop) > MAX_STOPS or not all(sampling.stop):
        raise _wrong(f"{_SAMPLING}.stop", f"at most {MAX_STOPS} strings, none of them empty")
    for bias in sampling.logit_bias.values():
        if not -100 <= bias <= 100:
            raise _wrong(f"{_SAMPLING}.logit_bias", f"{bias:g} is not in -100 to 100")


def _wrong(field: str, message: str) -> InvalidArgument:
    return InvalidArgument(f"{field}: {message}", field=field)
