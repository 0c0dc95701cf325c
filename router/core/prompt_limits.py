"""Prompts that fit nobody, refused by their size before any node sees them: reading one costs a node seconds."""

from __future__ import annotations

from typing import Final

from headrace.common.v1 import chat_pb2
from mesh.errors import InvalidArgument
from router.core.request_profile import RequestProfile, texts_of, tool_texts_of

# An estimate is believed when it is so many times the room that there is.
_CERTAIN: Final = 2
# No vocabulary has many tokens that are longer than this, in characters.
_LONGEST_TOKEN: Final = 128


def check_prompt(prompt: chat_pb2.Prompt, profile: RequestProfile, context: int) -> None:
    """Raise InvalidArgument for a prompt that cannot fit into `context`, a chain's largest in tokens; 0: not known."""
    if not context:
        return
    kind = prompt.WhichOneof("prompt")
    if kind == "tokens":
        if profile.prompt_tokens >= context:
            raise _too_long("generation.prompt.tokens", f"{profile.prompt_tokens}", context)
        return
    if profile.prompt_tokens <= context and prompt.ByteSize() <= context:
        # Every token has at least one byte: most prompts need no closer look.
        return
    texts = (prompt.text,) if kind == "text" else texts_of(prompt.chat)
    chars = sum(map(len, texts))
    if profile.prompt_tokens <= _CERTAIN * context and chars <= _LONGEST_TOKEN * context:
        return
    field = "generation.prompt.text" if kind == "text" else "generation.prompt.chat.messages"
    if kind == "chat" and 2 * sum(map(len, tool_texts_of(prompt.chat))) > chars:
        field = "generation.prompt.chat.tools"
    raise _too_long(field, f"about {max(profile.prompt_tokens, chars // _LONGEST_TOKEN)}", context)


def _too_long(field: str, tokens: str, context: int) -> InvalidArgument:
    return InvalidArgument(
        f"{field}: this model's maximum context length is {context} tokens, and the prompt has {tokens}; shorten it",
        reason="CONTEXT_TOO_LONG",
        field=field,
    )
