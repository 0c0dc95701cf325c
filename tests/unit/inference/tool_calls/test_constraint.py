"""What answers are held to, asked of xgrammar itself with a vocabulary of bytes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import xgrammar
from google.protobuf import json_format

from headrace.common.v1.chat_pb2 import ChatPrompt
from inference.adapters.torch.constraints.compiler import Compiler
from inference.core.checks import RequestError
from inference.core.constraints.structural_tags import MAX_CALLS
from inference.core.port import Constraint, ConstraintKind, UnsupportedConstraint
from inference.core.tool_calls.constraint import constraint_of
from inference.core.tool_calls.formats import HERMES, LLAMA, MISTRAL, MISTRAL_ARGS, MISTRAL_SPACED, Format
from inference.core.tool_calls.prompting import written

FORMATS = (HERMES, LLAMA, MISTRAL, MISTRAL_SPACED, MISTRAL_ARGS)
END = 256
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ONE, TWO = ("f", '{"n": 1}'), ("g", '{"n": 2}')


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler([*(bytes([byte]) for byte in range(END)), b""], END + 1, [END], 1)


def prompt(choice: str = "AUTO", *, parameters: Any = NUMBER, name: str = "", **more: Any) -> ChatPrompt:
    text = json.dumps(parameters)
    tools = [{"name": tool, "parametersJson": text} for tool in ("f", "g")]
    return json_format.ParseDict(
        {"tools": tools, "toolChoice": {"mode": f"MODE_{choice}", "name": name}, **more}, ChatPrompt()
    )


class Held:
    """Which answers a constraint allows."""

    def __init__(self, compiler: Compiler, constraint: Constraint | None) -> None:
        assert constraint is not None
        assert constraint.kind is ConstraintKind.STRUCTURAL_TAG
        self._grammar = compiler.compile(constraint)

    def allows(self, answer: str) -> bool:
        """Whether the answer may be that and end there."""
        matcher = xgrammar.GrammarMatcher(self._grammar)
        return bool(matcher.accept_string(answer)) and bool(matcher.accept_token(END))


@pytest.mark.parametrize("form", FORMATS)
def test_auto_allows_text_and_calls_but_nothing_that_looks_like_one(compiler: Compiler, form: Format) -> None:
    held = Held(compiler, constraint_of(prompt(), form, None))
    assert held.allows("")
    assert held.allows("Just text, é <b>.")
    assert held.allows(written([ONE], form))
    assert held.allows(written([ONE, TWO], form)) is form.parallel
    assert held.allows("First: " + written([ONE], form)) or not form.anywhere
    assert not held.allows(written([ONE], form) + " and more")
    assert not held.allows(form.opening + "anything")
    assert not held.allows(written([("f", '{"n": "x"}')], form))
    assert not held.allows(written([("h", '{"n": 1}')], form))


@pytest.mark.parametrize("form", FORMATS)
def test_required_and_named_are_calls_from_the_start(compiler: Compiler, form: Format) -> None:
    required = Held(compiler, constraint_of(prompt("REQUIRED"), form, None))
    assert required.allows(written([TWO], form))
    assert not required.allows("")
    assert not required.allows("Just text")
    assert not required.allows(" " + written([TWO], form))
    named = Held(compiler, constraint_of(prompt("NAMED", name="g"), form, None))
    assert named.allows(written([TWO], form))
    assert not named.allows(written([ONE], form))


@pytest.mark.parametrize("form", FORMATS)
def test_a_named_tool_is_called_once_and_a_required_one_a_bounded_number_of_times(
    compiler: Compiler, form: Format
) -> None:
    named = Held(compiler, constraint_of(prompt("NAMED", name="g"), form, None))
    assert named.allows(written([TWO], form))
    assert not named.allows(written([TWO, TWO], form))
    required = Held(compiler, constraint_of(prompt("REQUIRED"), form, None))
    assert required.allows(written([TWO] * MAX_CALLS, form)) is form.parallel
    assert not required.allows(written([TWO] * (MAX_CALLS + 1), form))


@pytest.mark.parametrize("form", FORMATS)
def test_none_allows_no_call(compiler: Compiler, form: Format) -> None:
    held = Held(compiler, constraint_of(prompt("NONE"), form, None))
    assert held.allows("Just text")
    assert not held.allows(written([ONE], form))
    assert not held.allows("First: " + written([ONE], form))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("choice", ["AUTO", "REQUIRED"])
def test_one_call_where_only_one_is_wanted(compiler: Compiler, form: Format, choice: str) -> None:
    held = Held(compiler, constraint_of(prompt(choice, parallelToolCalls=False), form, None))
    assert held.allows(written([ONE], form))
    assert not held.allows(written([ONE, TWO], form))


@pytest.mark.parametrize("form", [form for form in FORMATS if form.anywhere])
@pytest.mark.parametrize(
    ("response", "right", "wrong"),
    [
        (Constraint(ConstraintKind.JSON_OBJECT), '{"a": [1]}', "text"),
        (Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(NUMBER)), '{"n": 7}', '{"a": [1]}'),
        (Constraint(ConstraintKind.REGEX, "yes|no"), "yes", "yess"),
        (Constraint(ConstraintKind.GRAMMAR, 'root ::= "a" [0-9]'), "a1", "b1"),
    ],
)
def test_text_of_a_wanted_form_stands_in_the_place_of_any_text(
    compiler: Compiler, form: Format, response: Constraint, right: str, wrong: str
) -> None:
    held = Held(compiler, constraint_of(prompt(), form, response))
    assert held.allows(right)
    assert not held.allows(wrong)
    assert held.allows(written([ONE], form))
    assert constraint_of(prompt("NONE"), form, response) == response


def test_a_marker_that_is_one_token_begins_a_call_as_its_text_does() -> None:
    marker = END + 1
    vocabulary = [*(bytes([byte]) for byte in range(END)), b"", MISTRAL.trigger.encode()]
    constraint = constraint_of(prompt(), MISTRAL, None)
    assert constraint is not None
    matcher = xgrammar.GrammarMatcher(Compiler(vocabulary, len(vocabulary), [END], 1).compile(constraint))
    assert matcher.accept_string("First: ")
    assert matcher.accept_token(marker)
    assert not matcher.accept_string("text")
    assert matcher.accept_string(written([ONE], MISTRAL).removeprefix(MISTRAL.trigger))
    assert matcher.accept_token(END)


def test_llamas_calls_cannot_be_told_from_other_json() -> None:
    with pytest.raises(RequestError) as caught:
        constraint_of(prompt(), LLAMA, Constraint(ConstraintKind.JSON_OBJECT))
    assert caught.value.field == "generation.sampling.response_format"


def test_a_tool_without_parameters_takes_an_empty_object(compiler: Compiler) -> None:
    chat = ChatPrompt()
    chat.tools.add(name="f")
    held = Held(compiler, constraint_of(chat, HERMES, None))
    assert held.allows(written([("f", "{}")], HERMES))
    assert not held.allows(written([("f", '{"a": 1}')], HERMES))


def test_references_and_lengths_are_kept(compiler: Compiler) -> None:
    city = {"type": "string", "minLength": 2, "maxLength": 4}
    schema = {"properties": {"to": {"$ref": "#/$defs/city"}}, "required": ["to"], "$defs": {"city": city}}
    held = Held(compiler, constraint_of(prompt("REQUIRED", parameters=schema), HERMES, None))
    assert held.allows(written([("f", '{"to": "Oslo"}')], HERMES))
    assert not held.allows(written([("f", '{"to": "O"}')], HERMES))
    assert not held.allows(written([("f", '{"to": "Kyoto"}')], HERMES))


def test_arguments_hold_no_stretch_of_white_space(compiler: Compiler) -> None:
    held = Held(compiler, constraint_of(prompt("REQUIRED"), HERMES, None))
    assert held.allows(written([("f", '{"n":1}')], HERMES))
    assert held.allows(written([("f", '{\n"n": 1\n}')], HERMES))
    assert not held.allows(written([("f", '{  "n": 1}')], HERMES))


@pytest.mark.parametrize(
    ("tools", "field", "words"),
    [
        ([{"name": "a b"}], "tools[0].name", "'a b'"),
        ([{"name": "f"}, {"name": "f"}], "tools[1].name", "another tool"),
        ([{"name": "f"}, {"name": "g", "parametersJson": "[]"}], "tools[1].parameters_json", "not a JSON object"),
        ([{"name": "f", "parametersJson": '{"type": "string"}'}], "tools[0].parameters_json", "an object"),
        ([{"name": "f", "parametersJson": '{"anyOf": [{}]}'}], "tools[0].parameters_json", "an object"),
        ([{"name": "f", "parametersJson": '{"$ref": "#/x", "x": {}}'}], "tools[0].parameters_json", "an object"),
    ],
)
def test_what_describes_no_arguments_is_refused_by_name(tools: list[dict[str, str]], field: str, words: str) -> None:
    chat = json_format.ParseDict({"tools": tools}, ChatPrompt())
    with pytest.raises(RequestError, match=words.replace("[", r"\[")) as caught:
        constraint_of(chat, HERMES, None)
    assert caught.value.field == f"generation.prompt.chat.{field}"


@pytest.mark.parametrize("choice", ["AUTO", "REQUIRED", "NAMED"])
@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"properties": {"a": {"type": "array", "uniqueItems": True}}}, "'uniqueItems' at #/properties/a"),
        ({"properties": {"a": {"not": {}}}}, "'not' at #/properties/a"),
        ({"properties": {"a": {"type": "string", "pattern": "("}}}, "'pattern' at #/properties/a: has a ( without"),
        ({"properties": {"a": {"type": "string", "pattern": "\\ud800"}}}, "'pattern' at #/properties/a: has half of a"),
        ({"properties": {"a": {"type": "integer", "minimum": 3, "maximum": 2}}}, "'minimum' at #/properties/a"),
        ({"properties": {"a": {"$ref": "#/properties/a"}}}, "'$ref' at #/properties/a: leads back to itself"),
        ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "at #/properties/a: no value can satisfy it"),
    ],
)
def test_what_arguments_cannot_be_held_to_is_refused_by_tool_and_place(
    compiler: Compiler, choice: str, parameters: dict[str, Any], words: str
) -> None:
    chat = prompt(choice, name="g" if choice == "NAMED" else "")
    chat.tools[1].parameters_json = json.dumps(parameters)
    constraint = constraint_of(chat, HERMES, None)
    assert constraint is not None
    with pytest.raises(UnsupportedConstraint, match=re.escape(words)) as caught:
        compiler.compile(constraint)
    assert caught.value.place == "generation.prompt.chat.tools[1].parameters_json"


def test_what_is_not_called_is_held_to_nothing() -> None:
    schema = {"properties": {"a": {"not": {}}}}
    assert constraint_of(prompt("NONE", parameters=schema), HERMES, None) is not None


def test_a_schema_may_be_a_reference_to_one_of_objects(compiler: Compiler) -> None:
    schema = {"$ref": "#/$defs/node", "$defs": {"node": NUMBER}}
    held = Held(compiler, constraint_of(prompt("REQUIRED", parameters=schema), HERMES, None))
    assert held.allows(written([ONE], HERMES))
