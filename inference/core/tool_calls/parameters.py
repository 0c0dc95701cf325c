"""The JSON Schema of a tool's arguments."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format

from headrace.common.v1.chat_pb2 import Tool
from inference.core.tool_calls.documents import read_object

# A tool that takes nothing.
_NOTHING = {"type": "object", "properties": {}}


def parameters(tool: Tool) -> dict[str, Any]:
    """The schema, in the caller's order where they kept one. Raises ValueError where it is not an object in JSON."""
    if not tool.parameters_json:
        try:
            struct = json_format.MessageToDict(tool.parameters)
        except json_format.Error as error:
            raise ValueError("a number out of range") from error
        return _settled(struct) or dict(_NOTHING)
    return read_object(tool.parameters_json) or dict(_NOTHING)


def _settled(value: Any) -> Any:
    """What a Struct holds, alike on every node: it has no order of keys, and every number in it is a float."""
    if isinstance(value, dict):
        return {key: _settled(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_settled(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
