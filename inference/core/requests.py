"""A generation that passed inference.core.checks, put into the engine port's terms.

What turns out wrong only now that the tokens are known raises RequestError.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from headrace.common.v1.chat_pb2 import ChatPrompt
from headrace.common.v1.generation_pb2 import Generation, Sampling
from inference.core.chat_port import ChatRequest
from inference.core.checks import RequestError
from inference.core.continuing import continued_text
from inference.core.port import Constraint, ConstraintKind, EngineInfo, EngineRequest, SamplingParams
from inference.core.templating import TemplateError
from inference.core.text import TextModel
from inference.core.tool_calls.constraint import constraint_of, may_call, must_call
from inference.core.tool_calls.formats import Format
from inference.core.tool_calls.prompting import spelt_out, tools_of, turns_of

_SAMPLING = "generation.sampling"
_CHAT = "generation.prompt.chat"
_CONSTRAINTS = {
    "json_object": ConstraintKind.JSON_OBJECT,
    "json_schema": ConstraintKind.JSON_SCHEMA,
    "regex": ConstraintKind.REGEX,
    "grammar": ConstraintKind.GRAMMAR,
}


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A checked generation: what the engine is asked, and what the node itself sees to."""

    engine: EngineRequest
    stops: tuple[str, ...]
    # Per choice, the text that the caller already has; empty for a fresh start.
    emitted_text: tuple[str, ...]
    # How the answer spells calls of tools; None where it can make none.
    calls: Format | None = None
    # Whether the answer can be nothing but calls.
    only_calls: bool = False


def to_text_request(request: ChatRequest, info: EngineInfo, text: TextModel) -> TextRequest:
    """Tokenize a generation, and fill in what it leaves open. Raises RequestError."""
    context, generation = request.context, request.generation
    if generation.adapter and generation.adapter not in info.adapters:
        raise RequestError("generation.adapter", f"no adapter {generation.adapter!r} is loaded", reason="NOT_FOUND")
    calls = text.calls if may_call(generation.prompt.chat) else None
    prompt = tokenize(generation, info, text) + _continued(generation, text, calls)
    sampling = _sampling_params(generation, len(prompt), info, text)
    n = max(1, generation.sampling.n)
    emitted, emitted_text = _resumed(generation, n, info)
    asked = EngineRequest(
        request_id=context.request_id,
        prompt=prompt,
        sampling=sampling,
        n=n,
        emitted=emitted,
        tenant=context.tenant or "default",
        priority=context.priority,
        adapter=generation.adapter or None,
        deadline=request.deadline,
    )
    only_calls = calls is not None and must_call(generation.prompt.chat)
    return TextRequest(asked, tuple(generation.sampling.stop), emitted_text, calls, only_calls)


def tokenize(generation: Generation, info: EngineInfo, text: TextModel) -> tuple[int, ...]:
    """The prompt's tokens. Raises RequestError."""
    prompt = generation.prompt
    kind = prompt.WhichOneof("prompt")
    if kind == "tokens":
        ids = tuple(prompt.tokens.token_ids)
        if not ids:
            raise RequestError("generation.prompt.tokens", "empty")
        _check_ids("generation.prompt.tokens.token_ids", ids, info)
        return ids
    if kind == "text":
        ids = text.encode_text(prompt.text)
        if not ids:
            raise RequestError("generation.prompt.text", "empty")
        return ids
    if kind == "chat":
        return _chat_ids(prompt.chat, info, text)
    raise ValueError("not a checked generation: it has no prompt")


def _chat_ids(chat: ChatPrompt, info: EngineInfo, text: TextModel) -> tuple[int, ...]:
    turns = turns_of(chat, text.calls)
    # Tools that may not be called are described all the same: past answers of theirs would puzzle a model.
    tools = tools_of(chat) if calls_tools(info) else []
    if not text.takes_tools(given=bool(tools)):
        turns, tools = spelt_out(turns, tools, text.calls), []
    try:
        return text.encode_chat(turns, tools)
    except TemplateError as error:
        raise RequestError(f"{_CHAT}.messages", f"the model's chat template refuses them: {error}") from error


def calls_tools(info: EngineInfo) -> bool:
    """Whether answers of the engine can be held to calls of tools."""
    return ConstraintKind.STRUCTURAL_TAG in info.constraints


def _sampling_params(generation: Generation, prompt_tokens: int, info: EngineInfo, text: TextModel) -> SamplingParams:
    sampling, chat = generation.sampling, generation.prompt.chat
    room = info.context_length - prompt_tokens
    if room < 1:
        raise RequestError(
            "generation.prompt",
            f"{prompt_tokens} tokens leave no room for an answer; the context is {info.context_length}",
            reason="CONTEXT_TOO_LONG",
        )
    if sampling.max_tokens > room:
        raise RequestError(
            f"{_SAMPLING}.max_tokens",
            f"{sampling.max_tokens} and a prompt of {prompt_tokens} exceed the context of {info.context_length}",
            reason="CONTEXT_TOO_LONG",
        )
    _check_ids(f"{_SAMPLING}.logit_bias", tuple(sampling.logit_bias), info)
    return SamplingParams(
        max_tokens=sampling.max_tokens or room,
        temperature=_or(sampling, "temperature", 1.0),
        top_p=_or(sampling, "top_p", 1.0),
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=_or(sampling, "repetition_penalty", 1.0),
        logit_bias=dict(sampling.logit_bias),
        seed=sampling.seed if sampling.HasField("seed") else None,
        ignore_eos=sampling.ignore_eos,
        logprobs=sampling.top_logprobs if sampling.logprobs else None,
        constraint=_with_tools(chat, _constraint(sampling, info), info, text),
    )


def _or(sampling: Any, name: str, default: float) -> float:
    value: float = getattr(sampling, name) if sampling.HasField(name) else default
    # Contracts carry floats of 32 bits: 0.7 should not read 0.699999988.
    return value if not math.isfinite(value) else float(f"{value:.7g}")


def _constraint(sampling: Sampling, info: EngineInfo) -> Constraint | None:
    form = sampling.response_format.WhichOneof("format")
    if form is None or (form == "json_object" and not sampling.response_format.json_object):
        return None
    kind = _CONSTRAINTS[form]
    if kind not in info.constraints:
        message = f"engine {info.engine!r} cannot hold an answer to it"
        raise RequestError(f"{_SAMPLING}.response_format.{form}", message, reason="UNSUPPORTED_CONSTRAINT")
    source = "" if kind is ConstraintKind.JSON_OBJECT else getattr(sampling.response_format, form)
    return Constraint(kind, source, (f"{_SAMPLING}.response_format.{form}",))


def _with_tools(chat: ChatPrompt, response: Constraint | None, info: EngineInfo, text: TextModel) -> Constraint | None:
    if not chat.tools or not calls_tools(info):
        return response
    return constraint_of(chat, text.calls, response)


def _resumed(generation: Generation, n: int, info: EngineInfo) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
    if not generation.resume or continued_text(generation):
        return (), ("",) * n
    tokens: list[tuple[int, ...]] = [()] * n
    texts = [""] * n
    for i, emitted in enumerate(generation.resume):
        field = f"generation.resume[{i}]"
        if not 0 <= emitted.index < n:
            raise RequestError(f"{field}.index", f"{emitted.index} is not a choice of {n}")
        _check_ids(f"{field}.token_ids", tuple(emitted.token_ids), info)
        tokens[emitted.index], texts[emitted.index] = tuple(emitted.token_ids), emitted.text
    return tuple(tokens), tuple(texts)


def _continued(generation: Generation, text: TextModel, calls: Format | None) -> tuple[int, ...]:
    """The tokens of a text that the answer goes on from: the beginning of the model's own turn, and plain text."""
    begun = continued_text(generation)
    if begun and calls is not None and not calls.anywhere:
        message = "this model writes either text or calls, and goes on from a text without tools only"
        raise RequestError("generation.resume", message, capability=True)
    return tuple(text.tokenizer.encode(begun, first=False)) if begun else ()


def _check_ids(field: str, ids: tuple[int, ...], info: EngineInfo) -> None:
    for token in ids:
        if not 0 <= token < info.vocab_size:
            raise RequestError(field, f"{token} is no token of this model; ids are 0 to {info.vocab_size - 1}")
