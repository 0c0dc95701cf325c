from __future__ import annotations

import asyncio
import json
import random
import re

import jsonschema_rs
import numpy as np
import pytest
import torch
import xgrammar

from inference.adapters.torch.constraints.compiler import Compiler, GrammarState
from inference.adapters.torch.logits import allowed_tokens
from inference.core.port import Constraint, ConstraintKind, Finish, UnsupportedConstraint
from tests.unit.inference.engine.driving import VOCABULARY, ask, request, serving, text
from tests.unit.inference.engine.fake_runner import FakeRunner

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
}


@pytest.fixture
async def engine():
    async with serving(FakeRunner(sharpness=1.0, num_blocks=128)) as it:
        yield it


def written(tokens) -> str:
    return b"".join(VOCABULARY[token] for token in tokens).decode()


def constraint(kind: str, source="") -> dict:
    return {"constraint": Constraint(ConstraintKind(kind), source if isinstance(source, str) else json.dumps(source))}


async def many(engine, count: int = 12, max_tokens: int = 100, **more):
    return await asyncio.gather(
        *(ask(engine, request([i], max_tokens, temperature=1.0, seed=i, **more)) for i in range(count))
    )


async def test_every_answer_follows_the_schema(engine):
    for answer in await many(engine, 30, **constraint("json_schema", SCHEMA)):
        assert answer.finish == [Finish.STOP]
        found = json.loads(written(answer.tokens[0]))
        assert found.keys() == {"name", "age"}
        assert len(found["name"]) <= 5
        assert 0 <= found["age"] <= 120


async def test_regex_grammar_and_tags(engine):
    for answer in await many(engine, **constraint("regex", r"[a-c]{2,4}-\d+x")):
        assert re.fullmatch(r"[a-c]{2,4}-\d+x", written(answer.tokens[0])) or answer.finish == [Finish.LENGTH]
    for answer in await many(engine, **constraint("grammar", 'root ::= ("ab" | "cd")+ "!" [0-9]')):
        assert re.fullmatch(r"(ab|cd)+![0-9]", written(answer.tokens[0])) or answer.finish == [Finish.LENGTH]
    tag = {
        "type": "structural_tag",
        "format": {
            "type": "tag",
            "begin": "<f>",
            "content": {"type": "json_schema", "json_schema": {"type": "integer"}},
            "end": "</f>",
        },
    }
    for answer in await many(engine, **constraint("structural_tag", tag)):
        assert re.fullmatch(r"<f>-?\d+</f>", written(answer.tokens[0])) or answer.finish == [Finish.LENGTH]


async def test_json_mode_gives_an_object(engine):
    done = [a for a in await many(engine, 12, 200, **constraint("json_object")) if a.finish == [Finish.STOP]]
    assert done
    for answer in done:
        assert isinstance(json.loads(written(answer.tokens[0])), dict)


async def test_beside_free_answers_neither_changes(engine):
    free = await text(engine, [3], 20, ignore_eos=True)
    alone = (await many(engine, 4, **constraint("json_schema", SCHEMA)))[2]
    together, again = await asyncio.gather(
        text(engine, [3], 20, ignore_eos=True), many(engine, 4, **constraint("json_schema", SCHEMA))
    )
    assert together == free
    assert again[2].tokens == alone.tokens


async def test_resumed_answer_goes_on_in_its_grammar(engine):
    wanted = {"temperature": 1.0, "seed": 4, **constraint("json_schema", SCHEMA)}
    whole = await text(engine, [5], 100, **wanted)
    for cut in (1, 9, len(whole) - 1):
        assert await text(engine, [5], 100, emitted=[whole[:cut]], **wanted) == whole[cut:]
    with pytest.raises(UnsupportedConstraint, match="already emitted"):
        await text(engine, [5], 100, emitted=[[ord("x")]], **wanted)
    assert engine._admission.inside == 0


@pytest.mark.parametrize(
    ("kind", "source", "named"),
    [
        ("json_schema", {"type": "array", "uniqueItems": True}, "uniqueItems"),
        (
            "json_schema",
            {"type": "object", "properties": {"a": {"not": {"type": "string"}}}},
            "'not' at #/properties/a",
        ),
        ("json_schema", {"type": "number", "multipleOf": 0.5}, "multipleOf"),
        ("json_schema", {"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ("json_schema", {"$ref": "https://example.org/s"}, "outside the schema"),
        ("json_schema", {"$ref": "#/$defs/none"}, "nothing is at"),
        ("json_schema", {"type": "string", "pattern": r"^(?=.*\d)[a-z]+$"}, "'pattern' at #: looking ahead"),
        ("json_schema", {"type": "string", "pattern": "a(?!b)"}, "'pattern' at #: looking ahead"),
        ("json_schema", {"type": "object", "patternProperties": {"(?=a)b": {}}}, "'patternProperties' at #"),
        ("json_schema", {"type": "string", "pattern": "a^b"}, "'pattern' at #: ^ and $"),
        ("json_schema", {"type": "string", "pattern": "a$b"}, "'pattern' at #: ^ and $"),
        ("json_schema", "{", "the JSON schema cannot be read"),
        ("json_schema", {"type": "string", "enum": [1, 2]}, "'enum' at #: none of its values"),
        ("json_schema", {"allOf": [{"type": "string"}, {"type": "integer"}]}, "at #: no value can satisfy it"),
        ("regex", "(?=a)b", "regex: looking ahead"),
        ("grammar", "root ::= x", "\"x\", which 'root' uses, is not defined"),
        ("structural_tag", "{", "structural_tag"),
        ("regex", "a" * 300_000, "at most"),
    ],
)
async def test_what_cannot_be_held_to_is_refused_by_name(engine, kind, source, named):
    with pytest.raises(UnsupportedConstraint, match=re.escape(named)):
        await text(engine, [1], **constraint(kind, source))
    assert engine._admission.inside == 0


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 3}]},
        {
            "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
            "$defs": {
                "a": {"type": "object", "properties": {"k": {"const": "a"}}, "required": ["k"]},
                "b": {"type": "object", "properties": {"k": {"const": "b"}, "v": {"type": "null"}}, "required": ["k"]},
            },
        },
        {
            "type": "array",
            "prefixItems": [{"type": "boolean"}],
            "items": {"enum": [1, 2]},
            "maxItems": 3,
            "minItems": 1,
        },
        {"type": "string", "pattern": "^[ab]{1,3}$"},
        {"type": "string", "pattern": r"^[$^(?=]$|^\^\(\?=$|(^a$)"},
        {"type": ["integer", "null"], "minimum": 3, "maximum": 99},
        {"anyOf": [{"type": "string", "maxLength": 4}], "minLength": 2},
        {"maxLength": 2},
        {"type": "string", "enum": ["a", 1]},
        {"allOf": [{"type": "string", "maxLength": 9}, {"type": "string", "minLength": 3}]},
        {"type": "string", "format": "banana", "maxLength": 5},
        {"type": "object", "properties": {"d": {"type": "string", "format": "date"}}, "required": ["d"], "title": "T"},
    ],
)
async def test_what_is_accepted_is_held_to(engine, schema):
    for answer in await many(engine, 8, **constraint("json_schema", schema)):
        assert answer.finish == [Finish.STOP]
        jsonschema_rs.validate(schema, json.loads(written(answer.tokens[0])))


async def test_a_grammar_is_compiled_once(engine):
    compiled = []
    inner = engine._grammars._compile
    engine._grammars._compile = lambda wanted: compiled.append(wanted) or inner(wanted)
    await many(engine, 6, **constraint("regex", "[xy]z"))
    await many(engine, 2, **constraint("regex", "[xy]z"))
    assert len(compiled) == 1


REGEXES = [
    *(r"a{2,4}", r"a{0,3}b", r"(ab){0,2}", r"x{65}", r"a{1,}", r"(a{0,2}){0,2}b", r"a{0}b", r"[^\n]{2,3}"),
    *(r"[a-c]{2,4}-\d+x", r"\w+\s\w*", r"\W\S\D", r"[\d\s]", r"[\x20-\x7e]+", r"[\s\S]{1,2}", r"[^\W\d]"),
    *(r"(ab|c)*d", r"a||b", r"()a", r"(?:ab)+", r"a+?b", r"^a|b$", r"\.\*\+", r"\$\^\{\}\[\]\(\)\|\?", "a\nb"),
    *(r"\x41", r"\u0041", r"[é-ü]", r"[^é]", r"日本?", r"[😀-😎]", r'"q"', r"a\\b", r"[\]]", r"[a\-z]", "\x01"),
]


def test_expressions_mean_what_they_mean_as_rules_and_in_python():
    """Most become automata, whose masks are fast; whatever is compiled must accept the same texts."""
    vocabulary = [bytes([i]) for i in range(256)] + [b""]
    ours = Compiler(vocabulary, 257, [256], 1)
    info = xgrammar.TokenizerInfo(vocabulary, xgrammar.VocabType.RAW, vocab_size=257, stop_token_ids=[256])
    rules = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    rng = random.Random(1)
    letters = [*'abcdxzqA01-_ .*+?^$|(){}[]\\"\n\t\x01', "ab", "é", "ü", "日", "本", "😀", "x" * 65]
    texts = ["", *letters, *("".join(rng.choices(letters, k=rng.randint(2, 5))) for _ in range(150))]

    def accepts(grammar, written: str) -> bool:
        state = GrammarState(grammar)
        return all(state.accept(byte) for byte in written.encode()) and state.accept(256)

    for regex in REGEXES:
        compiled = ours.compile(Constraint(ConstraintKind.REGEX, regex))
        as_rules = rules.compile_regex(regex)
        for written in texts:
            expected = re.fullmatch(regex, written, re.ASCII) is not None
            assert accepts(compiled, written) == accepts(as_rules, written) == expected, (regex, written)


def test_masks_of_counted_repetitions_are_those_of_rules():
    """Near the end of a repetition, where rules are slow; over tokens of several bytes."""
    vocabulary = [*VOCABULARY[:127], b"ab", b"abc", b"bcab", b"aaaaaa", b"c\n", b""]
    ours = Compiler(vocabulary, 133, [132], 1)
    info = xgrammar.TokenizerInfo(vocabulary, xgrammar.VocabType.RAW, vocab_size=133, stop_token_ids=[132])
    rules = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    for regex in (r"([a-c]{2,9}\n)+", r"[a-c]{0,12}", r"((ab?){3}c){1,3}"):
        ends = (
            GrammarState(ours.compile(Constraint(ConstraintKind.REGEX, regex))),
            GrammarState(rules.compile_regex(regex)),
        )
        words = torch.zeros((2, 5), dtype=torch.int32)
        rng = np.random.default_rng(2)
        for _ in range(60):
            for row, state in enumerate(ends):
                state.fill(words, row, [])
            assert torch.equal(words[0], words[1])
            may = np.flatnonzero(allowed_tokens(words[:1], 132)[0].numpy())
            if not len(may):
                break
            token = int(rng.choice(may))
            assert all(state.accept(token) for state in ends)
