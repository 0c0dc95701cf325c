"""What can be told to be wrong with a generation in the contract's own terms, before anybody else is asked."""

from __future__ import annotations

import re
from typing import Final

from gateway.core.text_checks import check_texts
from headrace.common.v1.chat_pb2 import ROLE_UNSPECIFIED, ChatPrompt
from headrace.common.v1.generation_pb2 import Generation, Sampling
from mesh.contract_limits import (
    BIAS,
    FUNCTION_NAME,
    MAX_MESSAGES,
    MAX_MODEL_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_STOP_CHARACTERS,
    MAX_STOPS,
    MAX_TOOLS,
    SAMPLING,
)
from mesh.errors import InvalidArgument

_SAMPLING: Final = "generation.sampling"
_CHAT: Final = "generation.prompt.chat"
_FUNCTION_NAME: Final = re.compile(FUNCTION_NAME)


def check_generation(generation: Generation) -> None:
    """Raises InvalidArgument, which names the field as the contract spells it."""
    if not 0 < len(generation.model) <= MAX_MODEL_CHARACTERS:
        raise _wrong("generation.model", f"a name of at most {MAX_MODEL_CHARACTERS} characters is needed")
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
    if not 0 < len(chat.messages) <= MAX_MESSAGES:
        raise _wrong(f"{_CHAT}.messages", f"1 to {MAX_MESSAGES} are needed")
    if len(chat.tools) > MAX_TOOLS:
        raise _wrong(f"{_CHAT}.tools", f"at most {MAX_TOOLS}")
    for i, tool in enumerate(chat.tools):
        if _FUNCTION_NAME.fullmatch(tool.name) is None:
            raise _wrong(f"{_CHAT}.tools[{i}].name", "1 to 64 letters, digits, _ and - are needed")
    for i, message in enumerate(chat.messages):
        if message.role == ROLE_UNSPECIFIED:
            raise _wrong(f"{_CHAT}.messages[{i}].role", "a role is needed")
        if len(message.name) > MAX_NAME_CHARACTERS:
            raise _wrong(f"{_CHAT}.messages[{i}].name", f"at most {MAX_NAME_CHARACTERS} characters")


def _check_sampling(sampling: Sampling) -> None:
    for field, value in sampling.ListFields():
        limit = SAMPLING.get(field.name)
        if limit is not None and not limit.holds(value):
            raise _wrong(f"{_SAMPLING}.{field.name}", f"{value:g} is not {limit}")
    if len(sampling.stop) > MAX_STOPS or not all(0 < len(stop) <= MAX_STOP_CHARACTERS for stop in sampling.stop):
        raise _wrong(f"{_SAMPLING}.stop", f"at most {MAX_STOPS} strings, each of 1 to {MAX_STOP_CHARACTERS} characters")
    for bias in sampling.logit_bias.values():
        if not BIAS.holds(bias):
            raise _wrong(f"{_SAMPLING}.logit_bias", f"{bias:g} is not {BIAS}")


def _wrong(field: str, message: str) -> InvalidArgument:
    return InvalidArgument(f"{field}: {message}", field=field)
