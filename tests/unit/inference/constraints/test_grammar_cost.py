from __future__ import annotations

import re
import string

import pytest

from inference.core.constraints.grammar_cost import OTHERS, cost, counted, members
from inference.core.constraints.grammar_dialect import check_grammar
from inference.core.constraints.regex_dialect import NotHeldTo


def letters(bits: int) -> float:
    """A vocabulary of single letters."""
    return sum(bits >> ord(c) & 1 for c in string.ascii_lowercase) / 26


@pytest.mark.parametrize(
    "written",
    [
        "[a-z]",
        "[^a-z]",
        r"[^\x00-\x1f\"\\]",
        r"[\-\]a]",
        "[a-]",
        "[-a]",
        "[ -~]",
        r"[\n\r\t ]",
        r"[\d_]",
        r"[^\W]",
        r"[\u0041-C]",
    ],
)
def test_members_are_those_of_the_class(written):
    pattern = re.compile(written, re.ASCII)
    bits = members(written)
    assert [c for c in range(128) if bits >> c & 1] == [c for c in range(128) if pattern.match(chr(c))]
    assert bool(bits & OTHERS) == bool(pattern.match("é"))


@pytest.mark.parametrize(
    ("grammar", "minimum", "maximum"),
    [
        ("root ::= ((a{100, 100}))\na ::= (([a-z]))\n", 100, 101),
        ("root ::= ((a{0, 100000}))\na ::= (([a-z]))\n", 128, 129),
        ("root ::= ((a{50, -1}))\na ::= (([a-z]))\n", 50, 51),
        ("root ::= ((a{100, 100}))\na ::= (([0-9]))\n", 1, 2),
        ("root ::= ((b{100, 100}))\na ::= (([a-z]))\nb ::= ((a a))\n", 13, 15),
        ('root ::= ((b{100, 100}))\nb ::= (("xy" [a-z]))\n', 100, 103),
        ('root ::= Regex("[a-z]{100}|\\\\d{20}")\n', 100, 101),
        ('root ::= (("' + "x" * 256 + '"))\n', 1, 1.01),
        ('root ::= (("[a-z] a{100, 100} \\" [a-z]"))\na ::= (([0-9]))\n', 0, 0.2),
    ],
)
def test_cost_counts_the_places_that_are_written_out(grammar, minimum, maximum):
    assert minimum <= cost(grammar, letters) <= maximum


def test_long_repetitions_of_one_class_are_counted_and_others_left():
    text = (
        'root ::= ((a{0, 300} b{0, 300} a{0, 20} a{5, -1} "a{0, 300}" [a{0, 300}]))\n'
        'a ::= (([a-z]))\nb ::= (([a-z] "x"))\ncounted_1 ::= (("s"))\n'
        's ::= Regex("[^\\\\x00-\\\\x1f\\"\\\\\\\\]{2,500}", json_string=true)\n'
        't ::= Regex("[^\\\\x00-\\\\x1f\\"\\\\\\\\]{2,60}", json_string=true)\n'
        'u ::= Regex("[a-z]{2,500}", json_string=true)\n'
    )
    assert counted(text, 128) == (
        'root ::= ((counted_2 b{0, 300} a{0, 20} a{5, -1} "a{0, 300}" [a{0, 300}]))\n'
        'a ::= (([a-z]))\nb ::= (([a-z] "x"))\ncounted_1 ::= (("s"))\n'
        's[max_chars=500] ::= [^\\x00-\\x1f\\"\\\\] [^\\x00-\\x1f\\"\\\\] [^\\x00-\\x1f\\"\\\\]*\n'
        't ::= Regex("[^\\\\x00-\\\\x1f\\"\\\\\\\\]{2,60}", json_string=true)\n'
        'u ::= Regex("[a-z]{2,500}", json_string=true)\n'
        "counted_2[max_chars=300] ::= [a-z]*\n"
    )


@pytest.mark.parametrize(
    ("grammar", "named"),
    [
        ('root[lazy] ::= "a"', "options of a rule"),
        ('root ::= a\na[max_chars=3, capture="x"] ::= "a"', "options of a rule"),
        ('root ::= Regex("(?=a)b")', "Regex: looking ahead"),
        ('root ::= Regex( "a^b")', "Regex: ^ and $"),
        (r'root ::= Regex("\\q")', r"Regex: the escape \q"),
        ('root ::= Regex("[a-z]{129}")', "Regex: counts to 129"),
        ('root ::= Regex("([a-z]{100}){100}")', "10000 places"),
        ('root ::= Regex("(?<n>a)")', "groups with names"),
    ],
)
def test_grammars_with_what_would_be_passed_over_are_refused_by_name(grammar, named):
    with pytest.raises(NotHeldTo, match=re.escape(named)):
        check_grammar(grammar)


def test_grammars_that_only_quote_such_things_are_not():
    check_grammar('root ::= "a[lazy] ::= " [(?=a)] x # x[lazy] ::= Regex("a^b")\nx ::= Regex("^a[^$]\\\\^$")')
