"""Schemas of tools, in either way that the contract has for them."""

import pytest

from headrace.common.v1.chat_pb2 import Tool
from inference.core.tool_calls.parameters import parameters


def test_a_text_keeps_its_order_and_its_numbers() -> None:
    schema = parameters(Tool(parameters_json='{"properties": {"b": {"minimum": 1.5}, "a": {"minLength": 1}}}'))
    assert list(schema["properties"]) == ["b", "a"]
    assert schema["properties"]["a"] == {"minLength": 1}


def test_a_struct_reads_alike_everywhere_and_with_whole_numbers() -> None:
    tool = Tool()
    tool.parameters.update({"type": "object", "properties": {name: {"minLength": 1} for name in "dbca"}})
    schema = parameters(Tool.FromString(tool.SerializeToString()))
    assert list(schema["properties"]) == ["a", "b", "c", "d"]
    assert isinstance(schema["properties"]["a"]["minLength"], int)


@pytest.mark.parametrize("tool", [Tool(), Tool(parameters_json="{}")])
def test_a_tool_without_a_schema_takes_nothing(tool: Tool) -> None:
    assert parameters(tool) == {"type": "object", "properties": {}}


@pytest.mark.parametrize("text", ["[]", "1", "{", '{"a":' * 100_000, '{"a":' * 70 + "1" + "}" * 70])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not JSON|not a JSON object|nested"):
        parameters(Tool(parameters_json=text))
