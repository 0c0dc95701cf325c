"""Expressions as trees: what they match, what is refused, and what becomes of them in JSON."""

from __future__ import annotations

import json
import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.core.constraints.regex.automaton import Automaton
from inference.core.constraints.regex.characters import ALL, complement, of
from inference.core.constraints.regex.json_text import as_json
from inference.core.constraints.regex.limits import within
from inference.core.constraints.regex.parsing import NotHeldTo, parse
from inference.core.constraints.regex.tree import NEVER, lengths, places
from tests.unit.inference.constraints.sampling import some_text


@pytest.mark.parametrize(
    ("source", "named"),
    [
        *[(s, "ends of an alternative") for s in ("a^b", "a$b", "(a$)b", "a(^b)", "x(a|^b)")],
        *[(s, "repeated") for s in ("(^a)*", "(a$)+", "(a|^b){2}", "^*a", "((^a)b?)*")],
        *[(s, "looking ahead") for s in ("(?=a)b", "a(?!b)")],
        *[(s, "looking behind") for s in ("(?<=a)b", "(?<!a)b")],
        *[(s, "back to a group") for s in (r"(a)\1", r"[\9]")],
        *[(s, "flags") for s in ("(?i)a", "(?i:a)", "(?P=n)", "(?")],
        ("(?>a)", "atomic"),
        ("(?#a)", "comment"),
        (r"\bword", r"\b"),
        (r"\p{L}", r"\p"),
        (r"a\qb", r"\q"),
        (r"[\q]", r"\q"),
        (r"\xé1", r"\x"),
        ("a\\", "escape"),
        *[(s, "half of a surrogate pair") for s in (r"\ud800", r"[\udc00]", "\ud800", r"\u{d800}", r"\ud83da")],
        ("(", "has a ( without its )"),
        ("a)", "has a ) without its ("),
        ("[a", "has a [ without its ]"),
        ("*a", "behind nothing"),
        ("[z-a]", "before its beginning"),
        ("a{3,1}", "below its lower end"),
        ("a**", "repetition of a repetition"),
        ("a{,3}", "without its lower end"),
        ("a{999999}", "counts to 999999"),
        ("[[:alpha:]]", "named class"),
        ("(" * 49 + "a" + ")" * 49, "nested deeper than 48"),
    ],
)
def test_what_cannot_be_held_to_is_refused_by_name(source, named):
    with pytest.raises(NotHeldTo, match=re.escape(named)):
        parse(source)


@pytest.mark.parametrize(
    ("source", "found", "missing"),
    [
        ("^a|b$", ["a", "ax", "xb"], ["xa", "bx"]),
        ("((^a)|^b)c", ["ac", "bcx"], ["xac"]),
        (r"\ \_\"\é", [' _"é'], ["a"]),
        ("(?P<n>a)(?<m>b)(?:c)", ["abc", "xabcx"], ["ac"]),
        (r"^\ud83d\ude00$", ["😀"], ["a"]),
        (r"^\u{1F600}\x41\u0042\cA$", ["😀AB\x01"], ["😀AB"]),
        (r"^[\]\-^]+$", ["]-^"], ["a"]),
        ("^.$", ["a", "é"], ["\n", "\u2028", "ab"]),
        (r"^\S$", ["a"], [" ", "\u00a0"]),
        ("", ["", "a"], []),
    ],
)
def test_a_search_finds_what_it_should(source, found, missing):
    automaton = Automaton(parse(source).within)
    assert all(automaton.matches(text) for text in found)
    assert not any(automaton.matches(text) for text in missing)


@pytest.mark.parametrize(
    ("source", "whole", "beyond"),
    [("a-b", True, False), ("^a-b", True, True), ("a-b$", True, True), ("^a-b$", True, False), (r"\S", True, True)],
)
def test_a_pattern_tied_to_one_end_or_of_one_character_is_open_elsewhere(source, whole, beyond):
    automaton = Automaton(parse(source).meant)
    text = "a-b" if "-" in source else "a"
    assert automaton.matches(text) is whole
    assert (automaton.matches(f"{text}xa-b") or automaton.matches(f"x{text}")) is beyond


_PIECES = st.lists(
    st.sampled_from(["a", "b", "^", "$", "(", ")", "|", "*", "?", "{2}", "(?:", "[ab]", "[^a]", r"\d", r"\-"]),
    max_size=8,
)


@given(_PIECES.map("".join))
def test_what_is_accepted_means_what_it_means_in_python(source):
    try:
        pattern = re.compile(source)
        expression = parse(source)
    except (re.error, NotHeldTo):
        return
    whole, inside = Automaton(expression.whole), Automaton(expression.within)
    for text in ("", "a", "b", "aa", "ab", "ba", "aab", "a1", "-", "abab", "bb"):
        assert whole.matches(text) == (pattern.fullmatch(text) is not None)
        assert inside.matches(text) == (pattern.search(text) is not None)


_EXPRESSIONS = [
    r"^[a-z]([-a-z]*[a-z])?$",
    r"^(ab|c)*d?$",
    r"^\d{2,5}(\.\d+)?$",
    "^[ab]+(-[ab]+)*$",
    "^(a{2,3}b?){1,4}$",
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(_EXPRESSIONS), st.integers(0, 12), st.integers(0, 14), st.integers(0, 2**32))
def test_beside_lengths_every_text_has_them_and_matches_still(source, low, more, seed):
    narrowed = within(parse(source).whole, low, low + more)
    if narrowed == NEVER:
        return
    shortest, longest = lengths(narrowed)
    assert low <= shortest <= longest <= low + more
    for k in range(5):
        text = some_text(narrowed, Random(seed + k))
        assert low <= len(text) <= low + more
        assert re.search(source, text)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(
        [r'^say "[a-z]"$', r"^a\\b\t$", r"^[^a]{2}$", r"^[\n\r\x08]x$", r"^[^\s]*$", r"^\W\S\D$", "^(\"|'|\\\\)+$"]
    ),
    st.integers(0, 2**32),
)
def test_written_as_json_a_string_reads_back_to_what_matches(source, seed):
    tree = as_json(parse(source).whole, ALL, 4)
    text = json.loads(f'"{some_text(tree, Random(seed))}"')
    assert re.search(source, text)


@pytest.mark.parametrize("source", [r"^\x04$", r"^a[\x00-\x06]b$", r"^[^\s\S]$", "^[]$"])
def test_what_json_or_the_vocabulary_cannot_write_leaves_nothing(source):
    assert as_json(parse(source).whole, ALL, 4) == NEVER


def test_branches_that_cannot_be_written_leave_the_others():
    letters = of("a-z")
    tree = as_json(parse(r"^(aé|b\x04|c)$").whole, letters, 4)
    assert tree == as_json(parse("^c$").whole, letters, 4)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("^x-", "^y-", False),
        ("^x-", "-a$", True),
        ("^[a-c]+$", "^[d-f]+$", False),
        ("^a{3}$", "^a{4}$", False),
        ("^(ab)*$", "^a(ba)*b$", True),
    ],
)
def test_two_patterns_overlap_where_one_text_matches_both(one, other, overlap):
    assert Automaton(parse(one).within).overlaps(Automaton(parse(other).within)) is overlap


@pytest.mark.parametrize(
    ("source", "size"),
    [("", 0), ("abc", 3), (r"a\d[^\]x]{3}", 5), ("(ab){2,5}c", 11), ("((a{3}b){2}|c){4}", 36), ("(ab|cd){10,}", 40)],
)
def test_repetitions_count_as_often_as_they_may_come(source, size):
    assert places(parse(source).whole) == size


def test_sets_of_characters_have_no_surrogates():
    assert complement(()) == ALL
    assert complement(complement(of("a-z", "é"))) == of("a-z", "é")
    assert complement(of("a")) == ((0, 96), (98, 0xD7FF), (0xE000, 0x10FFFF))
