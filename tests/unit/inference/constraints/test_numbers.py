"""Numbers within bounds: every one that is written lies within them, and those that are short enough can be."""

from __future__ import annotations

import json
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.core.constraints.numbers import MAX_DIGITS, Bounds, decimals, multiples
from inference.core.constraints.regex.automaton import Automaton, TooLarge
from inference.core.constraints.regex.tree import NEVER
from tests.unit.inference.constraints.sampling import some_text

_NUMBERS = st.one_of(
    st.integers(-200, 200).map(Decimal),
    st.integers(-(10**20), 10**20).map(Decimal),
    st.decimals(-2000, 2000, places=4),
    st.integers(-50, 50).map(lambda n: Decimal(n).scaleb(-9)),
)


@settings(max_examples=200, deadline=None)
@given(st.none() | _NUMBERS, st.none() | _NUMBERS, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**32))
def test_every_number_lies_within_its_bounds(low, high, above, below, whole, seed):
    bounds = Bounds(low, high, above and low is not None, below and high is not None)
    tree = decimals(bounds, whole=whole)
    if tree == NEVER:
        assert low is not None
        assert high is not None
        middle = (low + high) / 2
        assert whole or not bounds.has(middle)
        assert not any(bounds.has(Decimal(n)) for n in range(int(low) - 1, int(low) + 2))
        return
    for k in range(6):
        text = some_text(tree, Random(seed + k))
        assert bounds.has(Decimal(text))
        json.loads(text)
        assert not whole or text.lstrip("-").isdigit()


@settings(max_examples=100, deadline=None)
@given(_NUMBERS, _NUMBERS, st.lists(_NUMBERS, min_size=5, max_size=20), st.booleans())
def test_whatever_lies_within_can_be_written(one, other, values, whole):
    bounds = Bounds(min(one, other), max(one, other))
    try:
        automaton = Automaton(decimals(bounds, whole=whole))
    except TooLarge:
        return
    for value in values:
        text = format(value, "f").rstrip("0").rstrip(".") if "." in format(value, "f") else format(value, "f")
        if len(text) <= MAX_DIGITS and text not in ("-0", "") and not (whole and "." in text):
            assert automaton.matches(text) == bounds.has(value)


def test_without_bounds_numbers_are_what_a_double_and_a_long_hold():
    automaton = Automaton(decimals(Bounds(), whole=False))
    assert all(automaton.matches(text) for text in ("0", "-1", "0.5", "1e5", "-12.25E-10", "9" * MAX_DIGITS))
    assert not any(
        automaton.matches(text) for text in ("00", "01", "1.", ".5", "+1", "1e", "9" * (MAX_DIGITS + 1), "1e999")
    )


@pytest.mark.parametrize(
    ("of", "bounds", "written"),
    [
        (7, Bounds(Decimal(10), Decimal(30)), ["14", "21", "28"]),
        (5, Bounds(Decimal(-5), Decimal(5), above=True), ["0", "5"]),
        (5, Bounds(Decimal(-5), Decimal(5), below=True), ["-5", "0"]),
        (100, Bounds(Decimal(1), Decimal(99)), []),
    ],
)
def test_multiples_within_bounds_are_all_of_them(of, bounds, written):
    automaton = Automaton(multiples(of, bounds))
    assert [str(n) for n in range(-200, 200) if automaton.matches(str(n))] == written


def test_too_many_multiples_are_not_written_out():
    assert multiples(2, Bounds(Decimal(0), Decimal(10**9))) is None
    assert multiples(2, Bounds(Decimal(0), None)) is None
