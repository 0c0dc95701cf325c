from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.constraints.regex_dialect import NotHeldTo, plain


@pytest.mark.parametrize(
    ("source", "named"),
    [
        *[(s, "ends of an alternative") for s in ("a^b", "a$b", "(a$)b", "a(^b)", "x(a|^b)", "^*a", "a{2,3}^b", "{^a")],
        *[(s, "repeated") for s in ("(^a)*", "(a$)+", "(a|^b){2}", "((^a)b?)*")],
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
    ],
)
def test_what_the_compiler_would_pass_over_is_refused_by_name(source, named):
    with pytest.raises(NotHeldTo, match=re.escape(named)):
        plain(source)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("^a$", "a"),
        ("^a|b$", "a|b"),
        ("((^a)|^b)c", "((a)|b)c"),
        ("(^a)?b", "(a)?b"),
        (r"\ \_\"\é", ' _"é'),
        (r"[\_\@^$]", "[_@^$]"),
        ("(?P<n>a)(?<m>b)(?:c)", "(?:a)(?:b)(?:c)"),
        (r"\$\^\\[\]^]", r"\$\^\\[\]^]"),
        (r"\d\W[\s\x41\u0041]\/\-", r"\d\W[\s\x41\u0041]\/\-"),
        ("", ""),
    ],
)
def test_what_says_nothing_is_left_out(source, said):
    assert plain(source) == said


_PIECES = st.lists(
    st.sampled_from(["a", "b", "^", "$", "(", ")", "|", "*", "?", "{2}", "(?:", "[ab]", "[^a]", r"\d", r"\-"]),
    max_size=8,
)


@given(_PIECES.map("".join))
def test_what_is_left_means_the_same(source):
    try:
        pattern = re.compile(source)
        said = plain(source)
    except (re.error, NotHeldTo):
        return
    for text in ("", "a", "b", "aa", "ab", "ba", "aab", "a1", "-", "abab", "bb"):
        assert (re.fullmatch(said, text) is None) == (pattern.fullmatch(text) is None), (said, text)
