"""Prompts that no context could hold, told by their bytes: before a tokenizer has to read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from headrace.common.v1.chat_pb2 import ChatPrompt, Prompt
from headrace.common.v1.generation_pb2 import Generation
from mesh.errors import InvalidArgument

# More than any tokenizer makes of text on the whole: four is usual, and runs of blanks come to ten or so.
_BYTES_PER_TOKEN: Final = 16


def check_context(generations: Sequence[Generation], max_context: int) -> None:
    """Raises InvalidArgument (CONTEXT_TOO_LONG) where a prompt is longer than `max_context` tokens for certain.

    0 is a context that is not known. The field is named as the contract spells it.
    """
    if not max_context:
        return
    for generation in generations:
        # Serialized, a token takes a byte at least, and a text no less than its own.
        if generation.prompt.ByteSize() > max_context:
            _check(generation.prompt, max_context)


def _check(prompt: Prompt, max_context: int) -> None:
    kind = prompt.WhichOneof("prompt")
    if kind == "tokens":
        tokens = len(prompt.tokens.token_ids)
        if tokens > max_context:
            raise _too_long("generation.prompt.tokens", f"{tokens} tokens", max_context)
        return
    limit = max_context * _BYTES_PER_TOKEN
    if kind == "text":
        size = len(prompt.text.encode())
        if size > limit:
            raise _too_long("generation.prompt.text", f"{size} bytes", max_context)
        return
    if prompt.ByteSize() > limit:
        _check_chat(prompt.chat, limit, max_context)


def _check_chat(chat: ChatPrompt, limit: int, max_context: int) -> None:
    # Images are no text: how many tokens they are is the model's to say.
    tools = _size(text for tool in chat.tools for text in (tool.description, tool.parameters_json))
    messages = _size(part.text for message in chat.messages for part in message.content)
    messages += _size(call.arguments_json for message in chat.messages for call in message.tool_calls)
    if tools + messages > limit:
        name, size = ("tools", tools) if tools > messages else ("messages", messages)
        raise _too_long(f"generation.prompt.chat.{name}", f"{size} bytes of text", max_context)


def _size(texts: Iterable[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def _too_long(field: str, what: str, max_context: int) -> InvalidArgument:
    message = f"{field}: {what} are more than {max_context} tokens, which is the model's maximum context length"
    metadata = {"max_context_length": str(max_context)}
    return InvalidArgument(message, field=field, reason="CONTEXT_TOO_LONG", metadata=metadata)
