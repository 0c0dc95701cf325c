"""A request for a plain completion, and its way into the contract: one generation for each prompt."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from gateway.core.openai.effects import NO_EFFECT, Unsupported
from gateway.core.openai.sampling import CommonRequest, TokenId, check_stream_options, to_sampling
from headrace.common.v1.chat_pb2 import Prompt, TokenPrompt
from headrace.common.v1.generation_pb2 import Generation, Sampling
from mesh.errors import InvalidArgument

MAX_PROMPTS: Final = 64
# What OpenAI's interface says where a request does not.
_DEFAULT_TOKENS: Final = 16

_TOKENS: Final = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, "minItems": 1}
_TEXT: Final = {"type": "string", "minLength": 1}
# Types cannot say that an array's items are all alike; the document does.
_PROMPT_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        _TEXT,
        {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MAX_PROMPTS},
        _TOKENS,
        {"type": "array", "items": _TOKENS, "minItems": 1, "maxItems": MAX_PROMPTS},
    ]
}
_Text = Annotated[str, Meta(min_length=1)]
_Item = _Text | TokenId | Annotated[list[TokenId], Meta(min_length=1)]


class CompletionRequest(CommonRequest, kw_only=True):
    """The body of POST /v1/completions."""

    prompt: Annotated[_Text | Annotated[list[_Item], Meta(min_length=1)], Meta(extra_json_schema=_PROMPT_SCHEMA)]
    echo: Annotated[bool, Meta(description="Begin the answer with the prompt; text prompts only.")] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5, description="Alternatives to give with each token.")] | None = None
    best_of: Annotated[Literal[1] | None, NO_EFFECT, Meta(description="Only 1: answers are given as drawn.")] = None
    suffix: Unsupported = None


def to_generations(request: CompletionRequest) -> list[Generation]:
    """The request in the contract's terms, one generation for each prompt. Raises InvalidArgument."""
    check_stream_options(request)
    prompts = _prompts(request.prompt)
    if request.echo and any(prompt.WhichOneof("prompt") == "tokens" for prompt in prompts):
        raise InvalidArgument("Invalid 'echo': the text of token prompts is not known here.", field="echo")
    if request.echo and request.logprobs is not None:
        raise InvalidArgument("Invalid 'logprobs': the prompt's own are not given; leave out 'echo'.", field="logprobs")
    sampling = _sampling(request)
    return [Generation(model=request.model, prompt=prompt, sampling=sampling) for prompt in prompts]


def echoes(request: CompletionRequest) -> list[str]:
    """What each prompt's answer begins with."""
    if not request.echo:
        return []
    return [request.prompt] if isinstance(request.prompt, str) else [str(prompt) for prompt in request.prompt]


def _sampling(request: CompletionRequest) -> Sampling:
    sampling = to_sampling(request)
    if request.max_tokens is None:
        sampling.max_tokens = _DEFAULT_TOKENS
    if request.logprobs is not None:
        sampling.logprobs = True
        sampling.top_logprobs = request.logprobs
    return sampling


def _prompts(prompt: str | list[Any]) -> list[Prompt]:
    if isinstance(prompt, str):
        return [Prompt(text=prompt)]
    if all(isinstance(item, int) for item in prompt):
        return [Prompt(tokens=TokenPrompt(token_ids=prompt))]
    if len(prompt) > MAX_PROMPTS:
        raise InvalidArgument(f"Invalid 'prompt': {len(prompt)} prompts; at most {MAX_PROMPTS}.", field="prompt")
    if all(isinstance(item, str) for item in prompt):
        return [Prompt(text=item) for item in prompt]
    if all(isinstance(item, list) for item in prompt):
        return [Prompt(tokens=TokenPrompt(token_ids=item)) for item in prompt]
    raise InvalidArgument("Invalid 'prompt': its items must be all texts, all tokens or all lists.", field="prompt")
