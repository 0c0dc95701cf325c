"""Rules: callers' grammars read, what can come to no end left out, and what compiling the rest costs."""

from __future__ import annotations

import re
import string

import pytest
import xgrammar
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.core.constraints.cost import OTHERS, members, walks
from inference.core.constraints.grammar_notation import class_of, parse_grammar
from inference.core.constraints.regex.characters import ALL, of
from inference.core.constraints.regex.parsing import NotHeldTo
from inference.core.constraints.regex.tree import Ref
from inference.core.constraints.rules import Rules, checked
from inference.core.constraints.writable import writable_characters


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
        r"[\u0041-C]",
    ],
)
def test_members_are_those_of_the_class(written):
    pattern = re.compile(written, re.ASCII)
    bits = members(class_of(written))
    assert [c for c in range(128) if bits >> c & 1] == [c for c in range(128) if pattern.match(chr(c))]
    assert bool(bits & OTHERS) == bool(pattern.match("é"))


@pytest.mark.parametrize(
    ("grammar", "minimum", "maximum"),
    [
        ("root ::= [a-z]{100}", 100, 102),
        ("root ::= [a-z]{0,100000}", 1, 2),
        ("root ::= a{0,100000}\na ::= [a-z] [a-z]", 2, 7),
        ('root ::= ("x" [a-z]){0,100000}', 128, 130),
        ("root ::= [a-z]{50,}", 50, 52),
        ("root ::= [0-9]{100}", 1, 2),
        ('root ::= "' + "x" * 256 + '"', 1, 1.01),
        ('root ::= "[a-z]{100}" [0-9]', 0, 0.2),
    ],
)
def test_cost_counts_the_places_that_are_written_out(grammar, minimum, maximum):
    assert minimum <= walks(parse_grammar(grammar), letters) <= maximum


@pytest.mark.parametrize(
    ("grammar", "named"),
    [
        ('root[lazy] ::= "a"', "options of a rule"),
        ('root ::= a\na[max_chars=3, capture="x"] ::= "a"', "options of a rule"),
        ('root ::= Regex("(?=a)b")', "Regex: looking ahead"),
        ('root ::= Regex( "a^b")', "Regex: ^ and $"),
        (r'root ::= Regex("\\q")', r"Regex: the escape \q"),
        ("root ::= TagDispatch(root)", "TagDispatch cannot be held to"),
        ("root ::= x", '"x", which'),
        ('x ::= "a"', '"root" is not defined'),
        ('root ::= "a"\nroot ::= "b"', "defined twice"),
        ('root ::= ("a"', "( without its )"),
        ('root ::= "a")', "where nothing can be repeated or closed"),
        ('root ::= "a', "line 1: '\"' cannot be read"),
        ("root ::= [z-a]", "before its beginning"),
        (r'root ::= "\ud800"', "no character"),
        (r'root ::= "\q"', r"the escape \q"),
        ('root ::= "a"{3,1}', "below its lower end"),
        ("root = a", "cannot be read"),
        ("::= a", "where a rule should begin"),
        ('root ::= "a" (="b")', "cannot be read"),
        ("", '"root" is not defined'),
        ("root ::= " + "(" * 60 + '"a"' + ")" * 60, "nested deeper than"),
    ],
)
def test_grammars_that_cannot_be_held_to_are_refused_by_name(grammar, named):
    with pytest.raises(NotHeldTo, match=re.escape(named)):
        parse_grammar(grammar)


def test_grammars_go_on_over_lines_and_only_quote_such_things():
    comment = '# x[lazy] ::= Regex("a^b")'
    rules = parse_grammar(f'{comment}\nroot ::= "a[lazy] ::= "\n  | [(?=a)] x {comment}\n\nx ::= Regex("^a$")\n')
    assert set(rules.named) == {"root", "x"}


@pytest.mark.parametrize(
    "grammar",
    [
        "root ::= root",
        'root ::= root "a"',
        'root ::= "a" root',
        "root ::= a\na ::= b\nb ::= a",
        'root ::= "x" [] ',
        "root ::= [^\\x00-\\U0010ffff]",
        'root ::= a{2} "c"\na ::= "b" a',
    ],
)
def test_what_comes_to_no_end_is_refused(grammar):
    with pytest.raises(NotHeldTo, match="nothing satisfies it"):
        checked(parse_grammar(grammar), ALL)


@pytest.mark.parametrize(
    "grammar",
    [
        "root ::= root{0,90000}",
        'root ::= "" root {2} {0,90000}',
        'root ::= a | "x"\na ::= "y"? (b "z"?){0,3}\nb ::= root?',
        'root ::= root{2,} | "a"',
    ],
)
def test_rules_that_repeat_themselves_before_anything_is_written_are_refused(grammar):
    """Some ended the process in the compiler."""
    with pytest.raises(NotHeldTo, match="repeats itself a counted number of times"):
        checked(parse_grammar(grammar), ALL)


@pytest.mark.parametrize(
    "grammar", ['root ::= root "a" | "b"', 'root ::= ("a" root){0,90} | "b"', 'root ::= root* "a"']
)
def test_other_rules_may_begin_with_themselves(grammar):
    assert "root" in checked(parse_grammar(grammar), ALL).named


@pytest.mark.parametrize("grammar", [r'root ::= "\x04"', 'root ::= "é"', 'root ::= [à-ü] "a" | "é"'])
def test_what_needs_characters_that_no_token_writes_is_refused(grammar):
    with pytest.raises(NotHeldTo, match="no token of this model can write"):
        checked(parse_grammar(grammar), of(" -~"))


def test_alternatives_that_come_to_no_end_are_left_out():
    rules = checked(
        parse_grammar('root ::= "a" | "b" dead | "é" | [a-é]\ndead ::= "x" dead\nunused ::= "y"'), of(" -~")
    )
    assert rules.written() == "root ::= [a-~]\n"


def test_rules_that_are_another_one_vanish():
    assert Rules(
        {"root": Ref("a"), "a": Ref("b"), "b": parse_grammar('root ::= "x"').named["root"]}
    ).pruned().named.keys() == {"root", "b"}


def test_what_a_vocabulary_can_write():
    bytewise = [bytes([i]) for i in range(256)]
    assert writable_characters(bytewise) == ALL
    assert writable_characters([b"a", b"bc", "é".encode(), b"", b"\xff"]) == of("aé")
    without = [token for token in bytewise if token not in (b"\x04", b"\xf1")]
    left = writable_characters(without)
    assert left[0] == (0, 3)
    assert not any(low <= 0x40000 <= high for low, high in left)


_PIECE = st.recursive(
    st.sampled_from(['"a"', '"b\\n"', "[a-c]", "[^a]", "[\\]\\-^]", '"é"', "x", "[à-ü]"]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({' '.join(parts)})"),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({' | '.join(parts)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,3}", "{1,}"])).map("({0[0]}){0[1]}".format),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(_PIECE, st.lists(st.sampled_from([*"abcxé]-\n", "aa", "é"]), max_size=5).map("".join))
def test_a_grammar_that_is_written_again_means_the_same(piece, text):
    source = f'root ::= {piece}\nx ::= "x" | "a" x\n'
    again = parse_grammar(source).pruned().written()
    vocabulary = [*(bytes([i]) for i in range(256)), b""]
    info = xgrammar.TokenizerInfo(vocabulary, xgrammar.VocabType.RAW, stop_token_ids=[256])
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    found = []
    for grammar in (source, again):
        matcher = xgrammar.GrammarMatcher(compiler.compile_grammar(grammar))
        found.append(all(matcher.accept_token(byte) for byte in text.encode()) and matcher.accept_token(256))
    assert found[0] == found[1]
