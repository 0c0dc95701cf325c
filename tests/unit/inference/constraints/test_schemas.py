"""Schemas: whatever is accepted, every answer that its grammar allows is valid; whatever is not is refused by place."""

from __future__ import annotations

import contextlib
import json
import re
from random import Random
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.engine.constraint_fuzz import run
from inference.core.constraints.regex.characters import ALL as EVERY_CHARACTER
from inference.core.constraints.regex.characters import of
from inference.core.constraints.schema.grammar import schema_rules
from inference.core.constraints.schema.keywords import read_json
from inference.core.port import UnsupportedConstraint
from tests.unit.inference.constraints.random_schemas import some_schema
from tests.unit.inference.constraints.real_schemas.catalogue import ALL
from tests.unit.inference.constraints.walking import VOCABULARY, answer, compiled, compiler


@pytest.fixture(scope="module")
def by_bytes():
    return compiler()


def validator(schema: Any):
    """Takes formats at their word. OpenAPI 3.0 has the fourth draft's exclusive bounds."""
    fourth = '"exclusiveMinimum": true' in json.dumps(schema)
    draft = jsonschema_rs.Draft4Validator if fourth else jsonschema_rs.Draft202012Validator
    return draft(schema, validate_formats=True)


def check_answers(by_bytes, schema: Any, count: int, seed: int = 0) -> int:
    """How many answers ended; each of those is valid. Raises UnsupportedConstraint."""
    grammar = compiled(by_bytes, "json_schema", json.dumps(schema))
    valid = validator(schema)
    ended = 0
    for k in range(count):
        written = answer(grammar, Random(seed + k))
        if written is not None:
            ended += 1
            valid.validate(json.loads(written.decode()))
    return ended


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.integers(0, 2**48))
def test_every_answer_to_an_accepted_schema_is_valid(by_bytes, seed):
    schema = some_schema(Random(seed))
    with contextlib.suppress(UnsupportedConstraint):
        check_answers(by_bytes, schema, 4, seed)


CYCLES = [
    ({"$ref": "#"}, "#"),
    ({"anyOf": [{"$ref": "#"}]}, "#/anyOf/0"),
    ({"anyOf": [{"type": "null"}, {"$ref": "#"}]}, "#/anyOf/1"),
    ({"allOf": [{"$ref": "#"}]}, "#/allOf/0"),
    ({"oneOf": [{"$ref": "#"}, {"type": "null"}]}, "#/oneOf/0"),
    ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, "#/$defs/A"),
    (
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"anyOf": [{"$ref": "#/$defs/A"}]}}},
        "#/$defs/B/anyOf/0",
    ),
    ({"properties": {"a": {"$ref": "#/properties/a"}}}, "#/properties/a"),
]
REAL = sorted(ALL)
# What cannot be held to among them: uniqueness, fractions' multiples, negation, conditions, looking ahead.
REFUSED = {
    "openapi/unique": "'uniqueItems' at #/properties/tags",
    "openapi/multiple": "'multipleOf' at #/properties/cents",
    "kubernetes/not_allowed": "'not' at #/properties/spec",
    "tools/conditional": "'if' at #",
    "tools/lookahead": "'pattern' at #/properties/password: looking ahead",
}


@pytest.mark.parametrize("name", REAL)
def test_real_schemas_are_held_to_or_refused_by_place(by_bytes, name):
    schema = ALL[name]
    if name in REFUSED:
        with pytest.raises(UnsupportedConstraint, match=re.escape(REFUSED[name])):
            compiled(by_bytes, "json_schema", json.dumps(schema))
        return
    check_answers(by_bytes, schema, 4)


def test_most_real_schemas_are_accepted():
    assert len(REAL) >= 80
    assert len(REFUSED) <= 0.2 * len(REAL)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        *[
            (schema, "no value can satisfy it")
            for schema in (
                {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]},
                {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
                {"type": "object", "properties": {"a": False}, "required": ["a"]},
                {"allOf": [{"type": "string"}, {"type": "integer"}]},
                False,
            )
        ],
        *[(schema, f"'$ref' at {place}: leads back to itself") for schema, place in CYCLES],
        ({"type": "string", "pattern": r"^[^\s\S]$"}, "'pattern' at #: nothing matches it"),
        ({"type": "string", "pattern": r"^a\x04$"}, "'pattern' at #: needs a character that no token"),
        ({"type": "string", "pattern": "[]"}, "'pattern' at #: nothing matches it"),
        ({"type": "string", "pattern": r"^\ud800$"}, "'pattern' at #: has half of a surrogate pair"),
        ({"type": "object", "patternProperties": {r"^\x04$": {}}, "minProperties": 1}, "'patternProperties' at #"),
        ({"const": "\ud800"}, "at #: needs the character"),
        ({"type": "object", "properties": {"\udfff": {}}}, "at #/properties/\udfff: needs the character"),
        ({"type": []}, "'type' at #: must be one of"),
        ({"type": "text"}, "'type' at #: must be one of"),
        ({"enum": []}, "'enum' at #: is not a list of values"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "'minimum' at #: no number"),
        ({"type": "integer", "exclusiveMinimum": 4, "exclusiveMaximum": 5}, "'minimum' at #: no number"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "'maxLength' at #: is less than minLength"),
        ({"type": "string", "minLength": "3"}, "'minLength' at #: must be a whole number"),
        (
            {"type": "string", "pattern": "^a$", "maxLength": 0},
            "'pattern' at #: nothing matches it, or nothing that has",
        ),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "'maxItems' at #"),
        ({"type": "object", "minProperties": 2}, "'minProperties' at #: is more than"),
        ({"type": "object", "minProperties": 2, "maxProperties": 1}, "'maxProperties' at #"),
        ({"properties": {"a/b": {"type": "string", "pattern": "("}}}, "'pattern' at #/properties/a~1b"),
        ({"$ref": "#/definitions/a", "definitions": {"a": {"not": {}}}}, "'not' at #/definitions/a"),
        ({"$ref": "other.json"}, "'$ref' at #: 'other.json' lies outside"),
        ({"$ref": "#/nowhere"}, "'$ref' at #: nothing is at"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "'oneOf' at #: its branches may overlap"),
        ({"type": "number", "multipleOf": 0.01}, "'multipleOf' at #"),
        ([], "is neither an object nor a boolean"),
    ],
)
def test_what_no_answer_could_satisfy_or_be_held_to_is_refused_by_place(by_bytes, schema, named):
    with pytest.raises(UnsupportedConstraint, match=re.escape(named)):
        compiled(by_bytes, "json_schema", json.dumps(schema))


@pytest.mark.parametrize("source", ["{", '{"minimum": NaN}', '{"minimum": 1e999999999}', "[" * 100_000, ""])
def test_what_is_no_json_is_refused(by_bytes, source):
    with pytest.raises(UnsupportedConstraint, match="the JSON schema"):
        compiled(by_bytes, "json_schema", source)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "minimum": 1e-9, "maximum": 1e-8},
        {"type": "number", "exclusiveMinimum": -1e-7, "exclusiveMaximum": -1e-8},
        {"type": "number", "minimum": 0.1, "maximum": 0.1},
        {"const": 2**63},
        {"enum": [2**64 + 1, -(2**65)]},
        {"type": "integer", "minimum": 2**63, "maximum": 2**63 + 5},
        {"type": "string", "pattern": '^say "[a-z]"$'},
        {"type": "string", "pattern": r"^a\\b\t\n[^x]$"},
        {"type": "string", "pattern": r"^[^a-z]{2}$"},
        {
            "type": "object",
            "additionalProperties": False,
            "patternProperties": {'^"[a-c]"$': {"type": "null"}},
            "minProperties": 1,
        },
        {
            "type": "object",
            "properties": {"x-a": {"type": "integer"}},
            "patternProperties": {"^x-": {"minimum": 5}},
            "required": ["x-a"],
        },
        {"type": "object", "properties": {"ab": {"type": "null"}}, "additionalProperties": {"type": "boolean"}},
        {"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2, "maxProperties": 2},
        {
            "type": "object",
            "properties": {"a": {"type": "null"}},
            "additionalProperties": {"type": "null"},
            "minProperties": 2,
            "required": ["a"],
        },
        {"type": "object", "required": ["z"], "additionalProperties": {"type": "integer"}},
        {"type": "string", "format": "ipv4"},
        {"type": "string", "format": "date"},
        {"type": "string", "format": "ipv6"},
        {"type": "string", "format": "date-time", "maxLength": 25},
        {"type": "object", "properties": {"n": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["n"]},
        {
            "properties": {
                "a": {"x-q": 1, "uniqueItems": False, "type": "array", "items": {"type": "integer", "format": "int32"}}
            },
            "x-o": 1,
        },
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        {"oneOf": [{"type": "string", "pattern": "^a"}, {"type": "string", "pattern": "^b"}]},
        {"oneOf": [{"type": "integer", "maximum": 3}, {"type": "integer", "minimum": 4}]},
        {"oneOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]},
        {"type": "integer", "multipleOf": 7},
        {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 100},
        {"type": "number", "multipleOf": 4, "exclusiveMinimum": 0},
        {"type": "string", "minLength": 3, "maxLength": 4, "pattern": "^[a-z]([-a-z]*[a-z])?$"},
        {"const": {"k": ["é😀", '"', "\\", "\n", "\x07", 1e-7, None]}},
        {"type": "array", "prefixItems": [{"type": "null"}], "items": False},
        {"propertyNames": {"pattern": "^[a-z]{2}$"}, "type": "object", "maxProperties": 3},
        True,
    ],
)
def test_each_of_these_is_held_to(by_bytes, schema):
    assert check_answers(by_bytes, schema, 12) >= 2


def test_white_space_is_bounded(by_bytes):
    grammar = compiled(
        by_bytes,
        "json_schema",
        json.dumps({"type": "array", "items": {"type": "boolean"}, "minItems": 3, "maxItems": 3}),
    )
    for seed in range(20):
        written = answer(grammar, Random(seed))
        assert written is not None
        assert not re.search(rb"\s\s", written)


def test_strings_hold_no_half_of_a_surrogate_pair(by_bytes):
    grammar = compiled(by_bytes, "json_schema", '{"type": "string"}')
    for seed in range(60):
        written = answer(grammar, Random(seed))
        if written is not None:
            json.loads(written.decode()).encode()


def test_names_and_literals_that_the_vocabulary_cannot_write_are_refused():
    ascii_only = of("\t\n", " -~")
    schema_rules(read_json('{"const": "a"}'), ascii_only)
    for schema in (
        {"const": "é"},
        {"enum": ["a", "é"]},
        {"properties": {"é": {}}},
        {"type": "string", "pattern": "^é$"},
    ):
        with pytest.raises(UnsupportedConstraint, match=r"at #\S*: needs (the|a) character"):
            schema_rules(read_json(json.dumps(schema)), ascii_only)


def test_the_same_schema_in_many_places_is_one_rule():
    field = {"type": "string", "maxLength": 40, "description": "a"}
    few, lots = (
        {"type": "object", "properties": {f"p{i}": field | {"title": f"{i}"} for i in range(n)}, "required": ["p0"]}
        for n in (2, 40)
    )
    rules = [
        schema_rules(read_json(json.dumps(schema)), EVERY_CHARACTER).written().count("chain_1_0 ::=")
        for schema in (few, lots)
    ]
    assert rules == [1, 1]


def test_the_vocabulary_of_these_tests_writes_every_byte():
    assert {token[0] for token in VOCABULARY if len(token) == 1} == set(range(256))


def test_no_constraint_made_to_hurt_ends_the_process_or_leaves_nothing_to_draw():
    found, deaths = run(300, seed=20_000)
    assert deaths == []
    assert found["empty"] == 0
    assert found["refused"] >= 100
    assert found["ended"] + found["cut"] >= 30
