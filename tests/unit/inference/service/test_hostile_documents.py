"""Documents that nothing could read again, before the engines that run here."""

from __future__ import annotations

import pytest

from headrace.common.v1.generation_pb2 import Generation
from inference.adapters.llamacpp.schema import SchemaError, parse_schema
from inference.core.checks import RequestError
from inference.core.constraints.checking import check
from inference.core.port import Constraint, ConstraintKind, UnsupportedConstraint
from inference.core.tool_calls.formats import HERMES
from inference.core.tool_calls.prompting import tools_of, turns_of

_SURROGATE = '{"type":"object","properties":{"s":{"enum":["\\ud83d"]}}}'
_DEEP = '{"items":' * 100_000 + "{}" + "}" * 100_000


@pytest.mark.parametrize("document", [_SURROGATE, _DEEP, '{"maximum":1e999}', "{"])
def test_schemas_are_refused_in_words(document: str) -> None:
    """By llama.cpp's node and by ours alike."""
    with pytest.raises(SchemaError):
        parse_schema(document)
    with pytest.raises(UnsupportedConstraint):
        check(Constraint(ConstraintKind.JSON_SCHEMA, document))


@pytest.mark.parametrize("document", ['{"s":"\\ud83d"}', '{"a":' + "[" * 5000 + "]" * 5000 + "}"])
def test_past_calls_and_tools_name_their_place(document: str) -> None:
    """What a template would write, and a tokenizer read."""
    generation = Generation()
    chat = generation.prompt.chat
    chat.messages.add().tool_calls.add(id="a", name="f", arguments_json=document)
    chat.tools.add(name="f", parameters_json=document)
    with pytest.raises(RequestError) as caught:
        turns_of(chat, HERMES)
    assert caught.value.field == "generation.prompt.chat.messages[0].tool_calls[0].arguments_json"
    with pytest.raises(RequestError) as caught:
        tools_of(chat)
    assert caught.value.field == "generation.prompt.chat.tools[0].parameters_json"


def test_a_struct_that_holds_no_number_is_refused() -> None:
    """The older field for a tool's schema can carry NaN."""
    generation = Generation()
    generation.prompt.chat.tools.add(name="f").parameters.fields["maximum"].number_value = float("nan")
    with pytest.raises(RequestError) as caught:
        tools_of(generation.prompt.chat)
    assert caught.value.field == "generation.prompt.chat.tools[0].parameters_json"
