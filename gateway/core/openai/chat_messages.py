"""The turns of a conversation as OpenAI writes them, and their way into the contract's messages."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from gateway.core.openai.effects import NO_EFFECT, Unsupported
from headrace.common.v1 import chat_pb2
from mesh.contract_limits import MAX_NAME_CHARACTERS
from mesh.errors import InvalidArgument

_URL_SCHEMES: Final = ("https://", "data:image/")
# What other servers put into their answers and clients send back: nothing here reads it.
Unread = Annotated[Any, NO_EFFECT]
Name = Annotated[str, Meta(max_length=MAX_NAME_CHARACTERS)]


class TextPart(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    """A piece of text."""

    text: str
    # Marks for other servers' caches.
    cache_control: Unread = None
    prompt_cache_breakpoint: Unread = None


class RefusalPart(Struct, tag_field="type", tag="refusal", forbid_unknown_fields=True):
    """What an assistant said in refusing; read as its text."""

    refusal: str


class ImageUrl(Struct, forbid_unknown_fields=True):
    """Where an image is: an https URL, or the image itself as a data URL."""

    url: Annotated[str, Meta(min_length=1)]
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Struct, tag_field="type", tag="image_url", forbid_unknown_fields=True):
    """An image, for models that see."""

    image_url: ImageUrl


class FunctionCall(Struct, forbid_unknown_fields=True):
    """A function that the model called; `arguments` is JSON text as the model wrote it."""

    name: Annotated[str, Meta(min_length=1)]
    arguments: str
    # OpenAI's client puts it there, and sends it back.
    parsed_arguments: Unread = None
    provider_specific_fields: Unread = None


class ToolCall(Struct, forbid_unknown_fields=True):
    """A tool that the model called."""

    id: Annotated[str, Meta(min_length=1)]
    function: FunctionCall
    type: Literal["function"] | None = None
    # Left over where an answer was put together from a stream.
    index: Annotated[int | None, NO_EFFECT] = None
    provider_specific_fields: Unread = None
    extra_content: Unread = None


TextContent = str | Annotated[list[TextPart], Meta(min_length=1)]


class Message(Struct, forbid_unknown_fields=True, kw_only=True):
    """What messages of every role have, and as null, which is to say not, what those of other roles have."""

    name: Name | None = None
    refusal: Unsupported = None
    tool_calls: Unsupported = None
    tool_call_id: Unsupported = None
    function_call: Unsupported = None
    audio: Unsupported = None
    annotations: Unsupported = None
    parsed: Unsupported = None
    reasoning: Unsupported = None
    reasoning_content: Unsupported = None
    reasoning_details: Unsupported = None
    thinking_blocks: Unsupported = None
    images: Unsupported = None
    provider_specific_fields: Unsupported = None


class SystemMessage(Message, tag_field="role", tag="system", kw_only=True):
    """Instructions."""

    content: TextContent


class DeveloperMessage(Message, tag_field="role", tag="developer", kw_only=True):
    """Instructions, by their newer name."""

    content: TextContent


class UserMessage(Message, tag_field="role", tag="user", kw_only=True):
    """What the user says."""

    content: str | Annotated[list[TextPart | ImagePart], Meta(min_length=1)]


class AssistantMessage(Message, tag_field="role", tag="assistant", kw_only=True):
    """What the model said. It may be sent back exactly as it came, from here or from another server."""

    content: str | Annotated[list[TextPart | RefusalPart], Meta(min_length=1)] | None = None
    refusal: str | None = None  # type: ignore[assignment]  # mypy knows no fields that become wider
    tool_calls: list[ToolCall] | None = None  # type: ignore[assignment]  # as above
    annotations: Unread = None
    parsed: Unread = None
    reasoning: Unread = None
    reasoning_content: Unread = None
    reasoning_details: Unread = None
    thinking_blocks: Unread = None
    images: Unread = None
    provider_specific_fields: Unread = None


class ToolMessage(Message, tag_field="role", tag="tool", kw_only=True):
    """What a tool answered."""

    content: TextContent
    tool_call_id: Annotated[str, Meta(min_length=1)]  # type: ignore[assignment]  # as above
    # The call that it answers has the name.
    name: Annotated[Name | None, NO_EFFECT] = None


ChatMessage = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage

_ROLES: Final = {
    SystemMessage: chat_pb2.ROLE_SYSTEM,
    DeveloperMessage: chat_pb2.ROLE_DEVELOPER,
    UserMessage: chat_pb2.ROLE_USER,
    AssistantMessage: chat_pb2.ROLE_ASSISTANT,
    ToolMessage: chat_pb2.ROLE_TOOL,
}


def to_message(message: ChatMessage, at: str) -> chat_pb2.Message:
    """The message in the contract's terms; `at` is its place in the request. Raises InvalidArgument."""
    made = chat_pb2.Message(role=_ROLES[type(message)], content=_content(message.content, at))
    if isinstance(message, ToolMessage):
        made.tool_call_id = message.tool_call_id
        return made
    if message.name:
        made.name = message.name
    if isinstance(message, AssistantMessage):
        _add_assistants(message, made, at)
    return made


def _content(content: str | list[Any] | None, at: str) -> list[chat_pb2.ContentPart]:
    if content is None:
        return []
    if isinstance(content, str):
        return [chat_pb2.ContentPart(text=content)]
    return [_part(part, f"{at}.content[{i}]") for i, part in enumerate(content)]


def _part(part: TextPart | RefusalPart | ImagePart, at: str) -> chat_pb2.ContentPart:
    if isinstance(part, TextPart):
        return chat_pb2.ContentPart(text=part.text)
    if isinstance(part, RefusalPart):
        return chat_pb2.ContentPart(text=part.refusal)
    url = part.image_url.url
    if not url.startswith(_URL_SCHEMES):
        field = f"{at}.image_url.url"
        raise InvalidArgument(f"Invalid '{field}': an https URL or a data URL of an image is needed.", field=field)
    return chat_pb2.ContentPart(image=chat_pb2.ImagePart(url=url, detail=part.image_url.detail or "auto"))


def _add_assistants(message: AssistantMessage, made: chat_pb2.Message, at: str) -> None:
    if message.refusal and not made.content:
        made.content.add(text=message.refusal)
    for call in message.tool_calls or ():
        made.tool_calls.add(id=call.id, name=call.function.name, arguments_json=call.function.arguments)
    if not made.content and not made.tool_calls:
        field = f"{at}.content"
        raise InvalidArgument(f"Invalid '{field}': needed where there are no 'tool_calls'.", field=field)
