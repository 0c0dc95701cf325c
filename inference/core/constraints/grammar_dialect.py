"""What of callers' grammars is held to; options of rules, and expressions that are not plain, are refused by name."""

from __future__ import annotations

import re

from inference.core.constraints.grammar_cost import unescaped
from inference.core.constraints.regex_dialect import NotHeldTo
from inference.core.constraints.schema_strings import checked_pattern

# Comments, literals and classes are passed over; a name in brackets before `::=` is a rule's options.
_PART = re.compile(
    r'#[^\n]*|Regex\s*\(\s*"(?P<expression>(?:\\.|[^"\\])*)"|"(?:\\.|[^"\\])*"'
    r"|\[(?:\\.|[^\]\\])*\]\s*(?P<options>::=)?",
    re.DOTALL,
)


def check_grammar(source: str) -> None:
    """Raise NotHeldTo for what the compiler would pass over, or would show on standard error."""
    for found in _PART.finditer(source):
        if found["options"]:
            raise NotHeldTo("options of a rule, in brackets before ::=, cannot be held to")
        if found["expression"] is not None:
            _check(unescaped(found["expression"]))


def _check(expression: str) -> None:
    bare = expression.removeprefix("^").removesuffix("$")
    try:
        said = checked_pattern(expression)
    except NotHeldTo as error:
        raise NotHeldTo(f"Regex: {error}") from error
    if said not in (bare, expression):
        raise NotHeldTo("Regex: has groups with names, or anchors or escapes that say nothing; leave them out")
