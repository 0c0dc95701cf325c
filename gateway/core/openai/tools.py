"""Tools and the form of an answer, as OpenAI writes them, and their way into the contract."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from gateway.core.openai.effects import NO_EFFECT
from headrace.common.v1 import chat_pb2
from mesh.contract_limits import FUNCTION_NAME, MAX_SCHEMA_DEPTH
from mesh.errors import InvalidArgument

FunctionName = Annotated[str, Meta(pattern=FUNCTION_NAME)]


class FunctionDefinition(Struct, forbid_unknown_fields=True):
    """A function that the model may call; `parameters` is a JSON Schema."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    """A tool; only functions are known."""

    function: FunctionDefinition


class NamedFunction(Struct, forbid_unknown_fields=True):
    """A function by its name."""

    name: FunctionName


class NamedTool(Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    """The tool that has to be called."""

    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class TextFormat(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    """Any text."""


class JsonObjectFormat(Struct, tag_field="type", tag="json_object", forbid_unknown_fields=True):
    """Any JSON object."""


class JsonSchema(Struct, forbid_unknown_fields=True, rename={"schema_": "schema"}):
    """A JSON Schema under a name."""

    name: FunctionName
    schema_: dict[str, Any]
    description: Annotated[str | None, NO_EFFECT] = None
    strict: bool | None = None


class JsonSchemaFormat(Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    """JSON that follows a schema."""

    json_schema: JsonSchema


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat

_MODES: Final = {
    "none": chat_pb2.ToolChoice.MODE_NONE,
    "auto": chat_pb2.ToolChoice.MODE_AUTO,
    "required": chat_pb2.ToolChoice.MODE_REQUIRED,
}


def to_tools(tools: list[FunctionTool]) -> list[chat_pb2.Tool]:
    """The tools in the contract's terms. Raises InvalidArgument."""
    made = []
    for i, tool in enumerate(tools):
        function = tool.function
        one = chat_pb2.Tool(name=function.name, description=function.description or "", strict=bool(function.strict))
        if function.parameters is not None:
            one.parameters_json = _json(function.parameters, f"tools[{i}].function.parameters")
        made.append(one)
    return made


def to_tool_choice(choice: ToolChoice, tools: list[FunctionTool]) -> chat_pb2.ToolChoice:
    """The choice in the contract's terms. Raises InvalidArgument where it is of a tool that is not there."""
    if isinstance(choice, str):
        return chat_pb2.ToolChoice(mode=_MODES[choice])
    name = choice.function.name
    if all(tool.function.name != name for tool in tools):
        field = "tool_choice.function.name"
        raise InvalidArgument(f"Invalid '{field}': no tool is called {name!r}.", field=field)
    return chat_pb2.ToolChoice(mode=chat_pb2.ToolChoice.MODE_NAMED, name=name)


def to_response_format(form: ResponseFormat) -> chat_pb2.ResponseFormat | None:
    """The form in the contract's terms; None where any text will do. Raises InvalidArgument."""
    if isinstance(form, TextFormat):
        return None
    if isinstance(form, JsonObjectFormat):
        return chat_pb2.ResponseFormat(json_object=True)
    schema, field = form.json_schema, "response_format.json_schema.schema"
    text = _json(schema.schema_, field)
    return chat_pb2.ResponseFormat(json_schema=text, name=schema.name, strict=bool(schema.strict))


def _json(document: dict[str, Any], field: str) -> str:
    level: list[Any] = [document]
    for _ in range(MAX_SCHEMA_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend(value.values())
            elif isinstance(value, list):
                inner.extend(value)
        if not inner:
            return msgspec.json.encode(document).decode()
        level = inner
    raise InvalidArgument(f"Invalid '{field}': nested deeper than {MAX_SCHEMA_DEPTH} levels.", field=field)
