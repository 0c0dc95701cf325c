"""The turns of a conversation as OpenAI writes them, and their way into the contract's messages."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from headrace.common.v1 import chat_pb2
from mesh.errors import InvalidArgument

_URL_SCHEMES: Final = ("https://", "data:image/")
Name = Annotated[str, Meta(max_length=256)]


class TextPart(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    """A piece of text."""

    text: str


class RefusalPart(Struct, tag_field="type", tag="refusal", forbid_unknown_fields=True):
    """What an assistant said in refusing; read as its text."""

    refusal: str


class ImageUrl(Struct, forbid_unknown_fields=True):
    """Where an image is: an https URL, or the image itself as a data URL."""

    url: Annotated[str, Meta(min_length=1)]
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(Struct, tag_field="type", tag="image_url", forbid_unknown_fields=True):
    """An image, for models that see."""

    image_url: ImageUrl


class FunctionCall(Struct, forbid_unknown_fields=True):
    """A function that the model called; `arguments` is JSON text as the model wrote it."""

    name: Annotated[str, Meta(min_length=1)]
    arguments: str
    # OpenAI's client puts it there, and sends it back.
    parsed_arguments: Any = None


class ToolCall(Struct, forbid_unknown_fields=True):
    """A tool that the model called."""

    id: Annotated[str, Meta(min_length=1)]
    function: FunctionCall
    type: Literal["function"] = "function"
    # Left over where an answer was put together from a stream.
    index: int | None = None


TextContent = str | Annotated[list[TextPart], Meta(min_length=1)]


class SystemMessage(Struct, tag_field="role", tag="system", forbid_unknown_fields=True):
    """Instructions."""

    content: TextContent
    name: Name | None = None


class DeveloperMessage(Struct, tag_field="role", tag="developer", forbid_unknown_fields=True):
    """Instructions, by their newer name."""

    content: TextContent
    name: Name | None = None


class UserMessage(Struct, tag_field="role", tag="user", forbid_unknown_fields=True):
    """What the user says."""

    content: str | Annotated[list[TextPart | ImagePart], Meta(min_length=1)]
    name: Name | None = None


class AssistantMessage(Struct, tag_field="role", tag="assistant", forbid_unknown_fields=True, kw_only=True):
    """What the model said. It may be sent back exactly as it came."""

    content: str | Annotated[list[TextPart | RefusalPart], Meta(min_length=1)] | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[ToolCall], Meta(min_length=1)] | None = None
    name: Name | None = None
    # Clients send back what other servers put there; nothing here reads them.
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    parsed: Any = None


class ToolMessage(Struct, tag_field="role", tag="tool", forbid_unknown_fields=True):
    """What a tool answered."""

    content: TextContent
    tool_call_id: Annotated[str, Meta(min_length=1)]


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
    return chat_pb2.ContentPart(image=chat_pb2.ImagePart(url=url, detail=part.image_url.detail))


def _add_assistants(message: AssistantMessage, made: chat_pb2.Message, at: str) -> None:
    if message.refusal and not made.content:
        made.content.add(text=message.refusal)
    for call in message.tool_calls or ():
        made.tool_calls.add(id=call.id, name=call.function.name, arguments_json=call.function.arguments)
    if not made.content and not made.tool_calls:
        field = f"{at}.content"
        raise InvalidArgument(f"Invalid '{field}': needed where there are no 'tool_calls'.", field=field)
