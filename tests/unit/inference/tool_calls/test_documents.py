"""JSON from callers, as whatever reads it later on can take it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.tool_calls.documents import DEEPEST, NotJson, read_json, read_object

_HOSTILE = {
    "half a pair": ('{"s":"\\ud83d"}', "surrogate"),
    "its other half": ('{"s":"\\udf0d"}', "surrogate"),
    "half a pair in upper case": ('{"s":"\\uD83D"}', "surrogate"),
    "half a pair as a name": ('{"\\ud83d":1}', "surrogate"),
    "half a pair deep inside": ('{"a":[{"b":["\\ud83dx"]}]}', "surrogate"),
    "nested arrays": ('{"a":' + "[" * 5000 + "]" * 5000 + "}", "nested"),
    "nested objects": ('{"a":' * 5000 + "1" + "}" * 5000, "nested"),
    "beyond any stack": ('{"a":' + "[" * 500_000 + "]" * 500_000 + "}", "nested"),
    "out of range": ('{"a":1e999}', "out of range"),
    "no number": ('{"a":NaN}', "no number"),
    "endless": ('{"a":-Infinity}', "no number"),
}


@pytest.mark.parametrize(("text", "says"), _HOSTILE.values(), ids=_HOSTILE.keys())
def test_what_nothing_could_read_again_is_refused(text: str, says: str) -> None:
    """With the reason, and as a ValueError whatever the parser raises."""
    with pytest.raises(ValueError, match=says):
        read_object(text)


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", '{"a": 1} {}', "9" * 5000])
def test_what_is_no_json_is_told_apart(text: str) -> None:
    """Callers may let it pass as text."""
    with pytest.raises((NotJson, ValueError)):
        read_json(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_documents_come_back_as_they_were(value: object) -> None:
    """Whole pairs of surrogates included."""
    assert read_json(json.dumps(value)) == value
    assert read_json(json.dumps(value, ensure_ascii=False)) == value


def test_the_deepest_document_is_read() -> None:
    """The limit is where the words say."""
    deepest = '{"a":' * DEEPEST + "1" + "}" * DEEPEST
    assert read_object(deepest)
    with pytest.raises(ValueError, match="nested"):
        read_object(f'{{"a":{deepest}}}')
