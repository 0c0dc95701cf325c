"""Constraints made to hurt, compiled and stepped in a process that may die: none should.

`python -m bench.engine.constraint_fuzz [--count 10000] [--seed 0]` prints what became of them and one JSON line. A
child compiles one after the other for a vocabulary of bytes, draws an answer from each that is accepted, and says which
it is at before it begins; when the child dies, its death and the constraint are told, and another goes on behind it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import torch
import xgrammar

from inference.adapters.torch.constraints.compiler import Compiler
from inference.core.port import Constraint, ConstraintKind, UnsupportedConstraint

VOCABULARY = [*(bytes([i]) for i in range(256)), b'": "', b'{"', b'"}', b"12", b"\\n", b"\xf0\x9f", b"ab", b""]
END = len(VOCABULARY) - 1
STEPS = 40
# One constraint may take this long, in seconds, before its child counts as dead.
MAX_WAIT_S = 120
_PIECES = [
    *(
        "a",
        "b",
        "-",
        " ",
        '"',
        "\\\\",
        r"\n",
        r"\t",
        r"\x04",
        r"\u00e9",
        r"\ud83d\ude00",
        r"\ud800",
        r"\d",
        r"\W",
        r"\S",
        ".",
    ),
    *(
        "[a-z]",
        "[^a]",
        r"[^\s\S]",
        "[]",
        r"[\]\\-]",
        "[😀-😎]",
        "(",
        "(?:",
        ")",
        "|",
        "*",
        "+",
        "?",
        "{2}",
        "{0,300}",
        "{3,}",
    ),
    *("^", "$", "(?=", r"\1", r"\p{L}", "{99999}", "é", "日本", "\0", "[[:alpha:]]"),
]
_TOKENS = [
    *(
        "root",
        "x",
        "y",
        "::=",
        "|",
        "(",
        ")",
        "*",
        "+",
        "?",
        "{2}",
        "{0,90000}",
        '"a"',
        '"\\x04"',
        '""',
        "[a-z]",
        "[^a]",
        "\n",
    ),
    *(
        "[]",
        "# c\n",
        'Regex("[a-z]{2}")',
        "TagDispatch",
        "(=",
        '"\\ud800"',
        "[lazy]",
        '"é"',
        "\nx ::=",
        "\ny ::=",
        "root",
    ),
]
_SCHEMA_KEYS = [
    *(
        "type",
        "properties",
        "required",
        "items",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
        "pattern",
        "enum",
        "const",
        "minLength",
    ),
    *("maxLength", "minimum", "maximum", "additionalProperties", "patternProperties", "minItems", "maxItems", "format"),
    *("propertyNames", "minProperties", "maxProperties", "multipleOf", "prefixItems", "$defs", "x-y", "not"),
]


def some_regex(rng: Random) -> str:
    """Pieces in any order, or one piece nested or repeated without measure."""
    if rng.random() < 0.1:
        depth = 10 ** rng.randint(1, 5)
        return rng.choice(["(", "(?:", "[", "(a|"]) * depth + "a" + rng.choice([")", ")*", "]", "?)"]) * depth
    return "".join(rng.choice(_PIECES) for _ in range(rng.randint(0, 20)))


def some_grammar(rng: Random) -> str:
    """Rules that may read themselves, and tokens in any order."""
    if rng.random() < 0.1:
        depth = 10 ** rng.randint(1, 5)
        return "root ::= " + "(" * depth + '"a"' + rng.choice([")", ")*"]) * depth
    if rng.random() < 0.1:
        count = rng.randint(1, 300)
        rules = "\n".join(
            f'r{i} ::= "{i}" r{rng.randrange(count)} | r{rng.randrange(count)} "x" | "y"' for i in range(count)
        )
        return f"root ::= r0\n{rules}"
    body = " ".join(rng.choice(_TOKENS) for _ in range(rng.randint(0, 25)))
    return f'root ::= {body}\nx ::= [a-c] x | root | "z"\ny ::= y {rng.choice(_TOKENS)} | [0-9]*'


def some_schema(rng: Random, depth: int = 0) -> Any:
    """Keywords in any company, with values that often are none of theirs."""
    if depth > 4 or rng.random() < 0.1:
        return rng.choice([True, False, {}, {"$ref": "#"}, {"type": "string"}, None, 3, []])
    return {key: _value(rng, key, depth) for key in rng.sample(_SCHEMA_KEYS, rng.randint(0, 5))}


def _value(rng: Random, key: str, depth: int) -> Any:
    if rng.random() < 0.05:
        return rng.choice([None, -1, 2**70, "x", [], {}, 1e-300, True])
    match key:
        case "properties" | "patternProperties" | "$defs":
            names = ["a", "b", 'q"', "\ud800", "é", "x" * 300]
            names = [some_regex(rng), "^a"] if key == "patternProperties" else names
            return {name: some_schema(rng, depth + 1) for name in rng.sample(names, rng.randint(0, 2))}
        case "anyOf" | "oneOf" | "allOf" | "prefixItems":
            return [some_schema(rng, depth + 1) for _ in range(rng.randint(0, 3))]
        case "items" | "additionalProperties" | "propertyNames" | "not":
            return some_schema(rng, depth + 1)
        case _:
            return _leaf(rng, key)


def _some_type(rng: Random) -> Any:
    names = ["object", "array", "string", "number", "integer", "boolean", "null", "text"]
    return rng.choice(names) if rng.random() < 0.7 else rng.sample(names, rng.randint(0, 3))


def _some_enum(rng: Random) -> Any:
    return [rng.choice(["a", 1, 1.5, None, {"a": []}, "\ud800", 2**80, "\x04"]) for _ in range(rng.randint(0, 4))]


# Keywords without schemas in them, but for those whose values are numbers.
_LEAVES: dict[str, Callable[[Random], Any]] = {
    "type": _some_type,
    "pattern": some_regex,
    "enum": _some_enum,
    "required": lambda rng: rng.sample(["a", "b", "z", "\udfff"], rng.randint(0, 2)),
    "$ref": lambda rng: rng.choice(["#", "#/$defs/a", "#/properties/a", "#/items", "http://x", "#/anyOf/0"]),
    "const": lambda rng: rng.choice(["\x04", "a", 2**64, 1e300, {"k": {}}, "\ud83d"]),
    "format": lambda rng: rng.choice(["date", "ipv6", "uri", "nothing", "email"]),
}


def _leaf(rng: Random, key: str) -> Any:
    made = _LEAVES.get(key)
    return made(rng) if made else rng.choice([0, 1, 2, 7, 100, 3000, 10**9, 2**40, -1, 0.5, 1e-9, 1e308])


def some_constraint(seed: int) -> Constraint:
    """One of any kind."""
    rng = Random(seed)
    if rng.random() < 0.02:
        return Constraint(ConstraintKind.JSON_SCHEMA, rng.choice(["[", '{"a":', '{"items":']) * 10 ** rng.randint(1, 5))
    match rng.choice(["schema", "schema", "regex", "grammar", "tools"]):
        case "schema":
            return Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(some_schema(rng)))
        case "regex":
            return Constraint(ConstraintKind.REGEX, some_regex(rng))
        case "grammar":
            return Constraint(ConstraintKind.GRAMMAR, some_grammar(rng))
        case _:
            form = {"type": "json_schema", "json_schema": some_schema(rng)}
            tag = {"type": "tag", "begin": "<f>", "content": form, "end": "</f>"}
            free = {"type": "triggered_tags", "triggers": ["<f>"], "tags": [tag], "stop_after_first": True}
            return Constraint(
                ConstraintKind.STRUCTURAL_TAG, json.dumps({"format": rng.choice([tag, free])}), ("tools[0]",)
            )


def outcome(compiler: Compiler, seed: int) -> str:
    """What became of a constraint: refused, ended, cut or empty (a mask with nothing in it)."""
    try:
        grammar = compiler.compile(some_constraint(seed))
    except UnsupportedConstraint:
        return "refused"
    matcher, rng = xgrammar.GrammarMatcher(grammar), Random(seed)
    words = torch.zeros((1, -(-len(VOCABULARY) // 32)), dtype=torch.int32)
    for _ in range(STEPS):
        matcher.fill_next_token_bitmask(words)
        row = words[0].tolist()
        allowed = [i for i in range(len(VOCABULARY)) if row[i // 32] >> i % 32 & 1]
        if not allowed:
            return "empty"
        token = rng.choice(allowed)
        if token == END:
            return "ended"
        matcher.accept_token(token)
    return "cut"


def child(first: int, last: int) -> None:
    """Try the seeds from `first` up to `last`, telling each before it is tried and what became of it."""
    compiler = Compiler(VOCABULARY, len(VOCABULARY), [END], 1)
    for seed in range(first, last):
        print(seed, end=" ", flush=True)
        print(outcome(compiler, seed), flush=True)


def run(count: int, seed: int) -> tuple[Counter[str], list[tuple[int, int]]]:
    """Outcomes, and the deaths: each the child's return code and the seed that it was at."""
    found: Counter[str] = Counter()
    deaths: list[tuple[int, int]] = []
    at, last = seed, seed + count
    while at < last:
        command = [sys.executable, "-m", "bench.engine.constraint_fuzz", "--child", str(at), str(last)]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=MAX_WAIT_S + count)
        lines = [line.split() for line in ran.stdout.splitlines()]
        found.update(line[1] for line in lines if len(line) == 2)
        at += len(lines)
        if ran.returncode:
            deaths.append((ran.returncode, at - 1))
    return found, deaths


def main() -> int:
    """Zero where no child died and no mask was empty."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=int, nargs=2)
    asked = parser.parse_args()
    if asked.child:
        child(*asked.child)
        return 0
    found, deaths = run(asked.count, asked.seed)
    for code, at in deaths:
        print(f"died with {code} at {at}: {some_constraint(at)!r:.300}")
    print(json.dumps({"bench": "constraint_fuzz", "count": asked.count, "deaths": len(deaths), **found}))
    return 1 if deaths or found["empty"] else 0


if __name__ == "__main__":
    sys.exit(main())
