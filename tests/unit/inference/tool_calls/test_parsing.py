"""Reading calls back: however an answer is cut into pieces, the same text and the same calls come out."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.tool_calls.formats import HERMES, LLAMA, MISTRAL, MISTRAL_ARGS, MISTRAL_SPACED, Format
from inference.core.tool_calls.parsing import CallParser
from inference.core.tool_calls.prompting import written

FORMATS = (HERMES, LLAMA, MISTRAL, MISTRAL_SPACED, MISTRAL_ARGS)
# What marks calls in some format, and what JSON has to escape.
HARD = (
    "<tool_call>",
    "</tool_call>",
    "<tool",
    "[TOOL_CALLS]",
    "[ARGS]",
    '{"name": "',
    "}",
    "{",
    "]",
    '"',
    "\\",
    "\n",
    "é",
)
texts = st.lists(st.sampled_from(HARD) | st.text(max_size=3), max_size=4).map("".join)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
calls = st.lists(st.tuples(st.from_regex(r"[a-zA-Z0-9_-]{1,9}", fullmatch=True), st.dictionaries(texts, documents)))


def cut(text: str, sizes: Iterable[int]) -> list[str]:
    """The text in pieces of those sizes, and what is left in one."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    return [*pieces, text[at:]]


def read(form: Format, pieces: Iterable[str]) -> tuple[str, list[tuple[str, str]]]:
    """The joined text and calls."""
    parser, text, found = CallParser(form), "", []
    for piece in pieces:
        gained = parser.feed(piece)
        text += gained.text
        for one in gained.pieces:
            if one.name:
                assert one.index == len(found)
                assert one.arguments == ""
                found.append([one.name, ""])
            else:
                found[one.index][1] += one.arguments
    assert parser.calls == len(found)
    return text + parser.flush(), [(name, arguments) for name, arguments in found]


@given(form=st.sampled_from(FORMATS), data=st.data())
def test_any_cut_gives_the_same_text_and_calls(form: Format, data: st.DataObject) -> None:
    made = data.draw(calls)[: None if form.parallel else 1]
    said = data.draw(texts) if form.anywhere else ""
    if form.trigger in said:
        said = ""
    spelt = [(name, json.dumps(arguments, ensure_ascii=False)) for name, arguments in made]
    whole = said + (written(spelt, form) if spelt else "")
    if spelt and form.trigger in whole[: len(said) + len(form.trigger) - 1]:
        # The text's end and the trigger make a trigger together; no constraint lets that happen.
        return
    sizes = data.draw(st.lists(st.integers(1, 5), max_size=len(whole)))
    assert read(form, cut(whole, sizes)) == (said, spelt)


@given(form=st.sampled_from(FORMATS), text=texts, sizes=st.lists(st.integers(1, 5), max_size=20))
def test_any_text_at_all_reads_alike_however_it_is_cut(form: Format, text: str, sizes: list[int]) -> None:
    assert read(form, cut(text, sizes)) == read(form, [text])


@pytest.mark.parametrize("form", FORMATS)
def test_what_was_given_out_depends_on_the_text_alone_at_every_place(form: Format) -> None:
    """Resuming rests on it: the next node reads the same tokens at once and knows what the caller has."""
    whole = ("Let me see. " if form.anywhere else "") + written(
        [("weather", '{"city": "Oslo"}'), ("time", "{}")][: 2 if form.parallel else 1], form
    )
    for end in range(len(whole) + 1):
        slowly, at_once = CallParser(form), CallParser(form)
        gained = [slowly.feed(character) for character in whole[:end]]
        other = at_once.feed(whole[:end])
        assert "".join(one.text for one in gained) == other.text
        assert "".join(p.name + p.arguments for one in gained for p in one.pieces) == "".join(
            p.name + p.arguments for p in other.pieces
        )


def test_a_name_comes_first_and_arguments_as_they_are_written() -> None:
    parser = CallParser(HERMES)
    assert parser.feed('Let me see. <tool_call>\n{"name": "weather", "argum').pieces == []
    pieces = parser.feed('ents": {"ci').pieces
    assert [(piece.index, piece.name, piece.arguments) for piece in pieces] == [(0, "weather", ""), (0, "", '{"ci')]
    assert [piece.arguments for piece in parser.feed('ty": "Oslo"}}\n</tool_call>').pieces] == ['ty": "Oslo"}']


def test_an_answer_that_ends_within_a_marker_gives_the_beginning_of_it_as_text() -> None:
    assert read(HERMES, ["a <tool"]) == ("a <tool", [])
    assert read(HERMES, ["a <tool_call>"]) == ("a ", [])
    assert read(LLAMA, ['{"na']) == ('{"na', [])


def test_llamas_calls_are_the_whole_answer_or_none() -> None:
    text = 'Such as {"name": "f", "parameters": {}}'
    assert read(LLAMA, [text]) == (text, [])
