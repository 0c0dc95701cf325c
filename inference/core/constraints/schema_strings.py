"""Strings in JSON schemas: their lengths as an expression, and the expressions that callers write for them."""

from __future__ import annotations

import re
from typing import Any

from inference.core.constraints.regex_dialect import NotHeldTo, plain
from inference.core.constraints.regex_size import written_out

# The most that a `maxLength` can be; longer ones are counted in 32 bits.
MAX_LENGTH = 2**31 - 1
# Each character that a string must have is a place of its own in the grammar.
MAX_LEAST = 128
# Beyond these an automaton takes seconds to compile, or is not made and masks take tens of milliseconds.
AUTOMATON_PLACES = 256
AUTOMATON_COUNT = 128
# Of all of a schema's expressions and lengths: the compiler takes milliseconds for each, before it can be judged.
MAX_PLACES = 24_000
# The characters of a string that JSON need not escape.
_PLAIN = r'[^\x00-\x1f"\\]'
_LENGTHS = re.compile(re.escape(_PLAIN) + r"\{\d+,\d*\}")


def length_pattern(minimum: int, maximum: int | None) -> str | None:
    """Lengths as an expression: the compiler's own rule for them lets raw control characters into the string.

    Characters that JSON would have to escape are left out. None for what grammar_cost.counted makes of longer ones.
    """
    if maximum is not None and maximum > AUTOMATON_COUNT:
        return None
    return f"{_PLAIN}{{{minimum},{'' if maximum is None else maximum}}}"


def checked_pattern(source: str) -> str:
    """The expression as the compiler takes it. Raises NotHeldTo for what it would not keep to, or is too large."""
    if _LENGTHS.fullmatch(source):
        return source
    if not becomes_automaton(source):
        places, count = written_out(source)
        raise NotHeldTo(
            f"counts to {count}, at most {AUTOMATON_COUNT}, and has {places:.0f} places when that is written out, "
            f"at most {AUTOMATON_PLACES}"
        )
    return plain(source)


def becomes_automaton(source: str) -> bool:
    """Whether an automaton of bounded size is made of the expression."""
    places, count = written_out(source)
    return places <= AUTOMATON_PLACES and count <= AUTOMATON_COUNT


def places_in(schema: Any) -> float:
    """Places of all expressions in a checked schema, written out; a value that looks like one counts too."""
    if isinstance(schema, list):
        return sum(map(places_in, schema))
    if not isinstance(schema, dict):
        return 0
    patterns = [schema["pattern"]] if isinstance(schema.get("pattern"), str) else []
    if isinstance(schema.get("patternProperties"), dict):
        patterns += schema["patternProperties"]
    return sum(written_out(pattern)[0] for pattern in patterns) + sum(map(places_in, schema.values()))
