"""Constraints that would take seconds to compile or for one mask, and those that the compiler talks about."""

from __future__ import annotations

import itertools
import json
import string

import pytest

from inference.adapters.torch.constraints.compiler import MAX_WALKS, Compiler, GrammarState
from inference.core.port import Constraint, ConstraintKind, UnsupportedConstraint

BYTES = [*(bytes([i]) for i in range(256)), b""]
WORDS = ["".join(word) for n in (2, 3) for word in itertools.product(string.ascii_lowercase, repeat=n)]
# About as large as a real one: how slow a mask is depends on it.
LONG = [f"{a}{b}" for a, b in zip(WORDS, WORDS[::-1], strict=True)]
VOCABULARY = [*BYTES[:-1], *(f"{lead}{word}".encode() for lead in ("", " ") for word in (*WORDS, *LONG)), b""]
SECRET = "hunter2"


@pytest.fixture(scope="module")
def compiler():
    return Compiler(VOCABULARY, len(VOCABULARY), [len(VOCABULARY) - 1], 2)


@pytest.fixture(scope="module")
def by_bytes():
    return Compiler(BYTES, len(BYTES), [256], 1)


def constraint(kind: str, source) -> Constraint:
    return Constraint(ConstraintKind(kind), source if isinstance(source, str) else json.dumps(source))


def text_of(minimum: int, maximum: int | None = None) -> dict:
    return {"type": "string", "minLength": minimum} | ({} if maximum is None else {"maxLength": maximum})


def tag(**form) -> dict:
    return {"type": "structural_tag", "format": form}


def thing(**properties) -> dict:
    return {"type": "object", "properties": properties, "required": list(properties)}


@pytest.mark.parametrize(
    ("kind", "source", "named"),
    [
        ("json_schema", thing(a=text_of(4000)), "'minLength' at #/properties/a: must be a whole number up to 128"),
        ("json_schema", thing(a=text_of(0, 2**40)), "'maxLength' at #/properties/a"),
        (
            "json_schema",
            thing(a={"type": "string", "pattern": "^([a-z ]-){1,5000}$"}),
            "'pattern' at #/properties/a: counts",
        ),
        ("json_schema", thing(a={"type": "string", "pattern": "^((a{99}){99}){99}$"}), "at most 256"),
        ("json_schema", {"type": "object", "patternProperties": {"^[a-z]{900}": {}}}, "'patternProperties' at #"),
        ("json_schema", thing(**{f"p{i}": text_of(100 + i) for i in range(20)}), f"at most {MAX_WALKS}"),
        ("json_schema", {"type": "integer", "multipleOf": 1.5}, "'multipleOf' at #"),
        (
            "json_schema",
            {"type": "integer", "multipleOf": 1025},
            "'multipleOf' at #: must be a whole number from 1 to 1024",
        ),
        ("json_schema", {"type": "array", "items": {}, "minItems": 129}, "'minItems' at #: must be a whole number"),
        ("json_schema", thing(a={"type": "string", "pattern": "(" * 30_000 + ")" * 30_000}), "has 60000 characters"),
        ("json_schema", thing(a={"type": "string", "pattern": "(" * 3_000 + ")" * 3_000}), "nested deeper than 48"),
        ("json_schema", "[" * 30_000 + "]" * 30_000, "brackets are nested deeper than 200"),
        ("regex", "(" * 3_000 + "a" + ")" * 3_000, "nested deeper than 48"),
        ("grammar", "root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000, "nested deeper than 48"),
        ("regex", "([a-z ]{2}){0,500}", "regex: can be read in too many ways"),
        ("regex", "([a-z ]{1,40}){1,40}", "regex: can be read in too many ways"),
        ("regex", "[a-z ]{100}x" * 20, f"regex: is too large: .* at most {MAX_WALKS}"),
        ("grammar", "root ::= s s s\ns ::= [a-z ]* | s s", "grammar: can be read in too many ways"),
        ("grammar", 'root ::= s\ns ::= s [a-z ] | ""', "grammar: can be read in too many ways"),
        (
            "grammar",
            "root ::= " + " ".join(["[a-z ]{100} [0-9]"] * 20),
            f"grammar: is too large: .* at most {MAX_WALKS}",
        ),
        ("grammar", 'root ::= "a" Regex("[a-z]{90000}")', f"grammar: is too large: .* at most {MAX_WALKS}"),
        ("grammar", 'root[lazy] ::= "a"', "options of a rule"),
        ("structural_tag", tag(type="regex", pattern="a^b"), "^regex: \\^ and"),
        ("structural_tag", tag(type="grammar", grammar='root[lazy] ::= "a"'), "^grammar: options of a rule"),
        ("structural_tag", tag(type="regex", pattern="([a-z ]{2}){0,500}"), "can be read in too many ways"),
        ("regex", "(a*)*" * 20_000, "regex: has 100000 characters, at most"),
    ],
)
def test_what_would_take_too_long_is_refused_by_field_and_limit(compiler, kind, source, named):
    with pytest.raises(UnsupportedConstraint, match=named):
        compiler.compile(constraint(kind, source))


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("json_schema", thing(**{f"property_{i}": {"type": "string"} for i in range(60)})),
        ("json_schema", thing(**{f"p{i}": text_of(0, 1000 + i) for i in range(30)})),
        ("json_schema", thing(**{f"p{i}": text_of(1, 100) for i in range(30)})),
        ("json_schema", {"type": "array", "items": thing(a=text_of(0, 16384)), "minItems": 3, "maxItems": 100_000}),
        ("json_schema", thing(**{f"p{i}": text_of(128) for i in range(240)})),
        ("json_schema", thing(a={"type": "string", "pattern": "^[a-z ]{1,5000}$"})),
        ("json_schema", {"enum": [f"value number {i}" for i in range(500)]}),
        ("regex", r"[^\n]{0,5000}"),
        ("regex", r"(\d\d,){0,500}"),
        ("regex", "|".join(WORDS[::50])),
        ("grammar", 'root ::= e\ne ::= e "+" t | t\nt ::= t "*" f | f\nf ::= "(" e ")" | [0-9]+'),
        (
            "grammar",
            'root ::= "SELECT " n (", " n)* " FROM " n (" WHERE " n " = " v)?\nn ::= [a-z_]+\nv ::= "\'" [^\']* "\'"',
        ),
        ("grammar", 'root ::= "\\"" [^"]{0,9000} "\\""'),
    ],
)
def test_what_people_write_is_let_in(compiler, kind, source):
    assert compiler.compile(constraint(kind, source)).memory_size_bytes < 2_000_000


def accepts(compiler: Compiler, kind: str, source, written: str) -> bool:
    state = GrammarState(compiler.compile(constraint(kind, source)))
    return all(state.accept(byte) for byte in written.encode()) and state.accept(256)


@pytest.mark.parametrize(("minimum", "maximum"), [(0, 300), (3, 129), (128, 128), (100, 1000), (0, 128)])
@pytest.mark.parametrize("letter", ["a", "é", "😀"])
def test_lengths_are_kept_to_the_character(by_bytes, minimum, maximum, letter):
    for count in (max(minimum - 1, 0), minimum, minimum + 1, maximum - 1, maximum, maximum + 1):
        fits = minimum <= count <= maximum
        said = letter * count
        assert accepts(by_bytes, "json_schema", text_of(minimum, maximum), json.dumps(said, ensure_ascii=False)) == fits
        assert accepts(by_bytes, "regex", f"x[^x]{{{minimum},{maximum}}}x", f"x{said}x") == fits
        assert accepts(by_bytes, "grammar", f'root ::= [^x]{{{minimum},{maximum}}} ("x" | [a-z])', f"{said}x") == fits


def test_what_is_counted_twice_in_a_row_is_kept_whichever_way_it_is_read(by_bytes):
    grammar = "root ::= [a-z]{2,200} [a-z0-9]{0,150} [a-z]?"
    for count, fits in ((1, False), (2, True), (200, True), (351, True), (352, False)):
        assert accepts(by_bytes, "grammar", grammar, "a" * count) == fits
    assert accepts(by_bytes, "grammar", grammar, "a" * 200 + "1" * 150 + "a")
    assert not accepts(by_bytes, "grammar", grammar, "a" * 200 + "1" * 151 + "a")


def test_counted_strings_hold_nothing_that_json_escapes(by_bytes):
    for letter in ("\n", "\x01", '"', "\\"):
        assert not accepts(by_bytes, "json_schema", text_of(0, 500), f'"a{letter}a"')


PATTERNS = [
    *("a^b", "a$b", "(^a)", "(a$)b", "a(^b)", "^^a", "a$$", "(^|b)a", "a($|b)", "$", "^", "^a$", "(^a)*"),
    *(
        r"\q",
        r"\_",
        r"\ ",
        r"\z",
        r"\A",
        r"\<",
        r"\h",
        r"\é",
        "é\\é",
        r"\xé1",
        r"[\q]",
        r"[\_]",
        r"\cA",
        r"\0",
        r"[\b]",
    ),
    *("(?i)a", "(?P<n>a)", "(?<n>a)", "(?=a)b", "(?!a)", "(?<=a)b", r"\bfoo\b", r"\p{L}", r"\1", r"(a)\1", "(?>a)"),
    *("[^é]", r"[^\x80]", r"[^\d]", "a{2", "a{,3}", "{2}", "a**", "a{70000}", "a{99999999999}", "[]", "[^]", "a{300}"),
    *("[a-z]{0,300}", "([a-z ]{2}){0,300}", "(a*)*", "[z-a]", "(", ")", "", "\\", "a|b{2,1}", "[[:alpha:]]", "a++"),
]
SCHEMAS = [
    {"oneOf": [thing(k={"const": f"{SECRET}a"}), thing(k={"const": f"{SECRET}b"})]},
    {"oneOf": [{"const": SECRET}, {"const": f"{SECRET}2"}]},
    {"type": "integer", "multipleOf": 1.5, "title": SECRET},
    {"type": "number", "multipleOf": 3, "title": SECRET},
    {"type": "integer", "multipleOf": 99991, "title": SECRET},
    {"type": "string", "format": SECRET},
    {"type": "string", "format": "email", "maxLength": 3},
    {"type": "string", SECRET: 3},
    {"$ref": f"https://{SECRET}"},
    {"allOf": [{"const": SECRET}, {"type": "string"}]},
    {"type": "object", "propertyNames": {"pattern": f"^{SECRET}\\_"}},
    thing(**{SECRET: {"type": "string", "maxLength": 5000}}),
    {"type": "array", "items": {"const": SECRET}, "maxItems": 100_000},
]
GRAMMARS = [
    f'root[lazy] ::= {SECRET} x\n{SECRET} ::= "{SECRET}" x\nx ::= "x"',
    f'root ::= a | b\na[max_tokens=1, temperature=0.1, lazy] ::= [a-z]+ b\nb ::= "{SECRET}"',
    f'root ::= a\na[max_chars=1] ::= "x{SECRET}"',
    f'root ::= TagDispatch(("<{SECRET}>", a), loop_after_dispatch=false, excludes=("{SECRET}2"))\na ::= "x"',
    f'root ::= "{SECRET}" [^\\x80-\\xff]{{0,500}}',
    f"root ::= {SECRET}",
    f'# {SECRET}\nroot ::= "{SECRET}" root | "{SECRET}"{{3,1}}',
]


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        *(("regex", f"{SECRET}|{pattern}") for pattern in PATTERNS),
        *(("regex", pattern + SECRET) for pattern in PATTERNS),
        *(("json_schema", {"type": "string", "pattern": f"{SECRET}|{pattern}"}) for pattern in PATTERNS),
        *(("json_schema", {"type": "object", "patternProperties": {pattern + SECRET: {}}}) for pattern in PATTERNS),
        *(("grammar", f"root ::= Regex({json.dumps(pattern + SECRET)})") for pattern in PATTERNS),
        *(("structural_tag", tag(type="regex", pattern=SECRET + pattern)) for pattern in PATTERNS),
        *(("json_schema", schema) for schema in SCHEMAS),
        *(("grammar", grammar) for grammar in GRAMMARS),
    ],
)
def test_nothing_of_a_callers_constraint_is_written_to_standard_error(by_bytes, capfd, kind, source):
    """The compiler warns on the process's own standard error, in C++, with the expression in its words."""
    try:
        state = GrammarState(by_bytes.compile(constraint(kind, source)))
        for byte in f'"{SECRET}'.encode():
            state.accept(byte)
    except UnsupportedConstraint:
        pass
    written = "".join(capfd.readouterr())
    assert SECRET not in written
    # Where in its sources it warns; whatever else runs in this process may write as well.
    assert "/cpp/" not in written
