"""The event stream parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.providers.sse import SseError, SseEvent, SseParser

_TEXT = st.text(st.characters(exclude_characters="\r\n\x00", exclude_categories=["Cs"]), max_size=20)


def _parse(data: bytes, cuts: list[int]) -> list[SseEvent]:
    parser, events, start = SseParser(), [], 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        events += parser.feed(data[start:cut])
        start = cut
    return events


@given(
    events=st.lists(st.tuples(_TEXT, st.lists(_TEXT, min_size=1, max_size=3)), max_size=5),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 4000), max_size=30),
    comment=_TEXT,
)
def test_events_survive_any_cutting(
    events: list[tuple[str, list[str]]], line_end: str, cuts: list[int], comment: str
) -> None:
    """Whatever the line ends and wherever the chunks are cut, also within a character, the events are the same."""
    lines: list[str] = []
    for name, data in events:
        lines += [f":{comment}", f"event: {name}", *(f"data: {line}" for line in data), "id: 7", ""]
    stream = "".join(line + line_end for line in lines).encode()
    assert _parse(stream, cuts) == [SseEvent(name, "\n".join(data)) for name, data in events]


def test_what_the_end_cuts_short_is_not_an_event() -> None:
    """A last event without its empty line is never given out."""
    assert SseParser().feed(b"data: whole\n\ndata: half\n") == [SseEvent("", "whole")]


def test_one_space_after_the_colon_belongs_to_the_syntax() -> None:
    """The second space and everything after it is data; a missing one is fine."""
    assert SseParser().feed(b"\xef\xbb\xbfdata:  a\ndata:b\n\n") == [SseEvent("", " a\nb")]


def test_an_event_without_data_is_none() -> None:
    """A name alone dispatches nothing, and does not stick to the next event."""
    assert SseParser().feed(b"event: ping\n\ndata: x\n\n") == [SseEvent("", "x")]


@pytest.mark.parametrize(
    "stream", [b"data: " + b"x" * 2000 + b"\n", b"x" * 1001, b"data: " + b"x" * 900 + b"\ndata: " + b"y" * 900 + b"\n"]
)
def test_sizes_are_bounded(stream: bytes) -> None:
    """A line or an event that never ends does not fill the memory."""
    with pytest.raises(SseError):
        SseParser(max_line=1000, max_event=1500).feed(stream)


def test_bytes_that_are_no_text_are_refused() -> None:
    """A line that is not UTF-8 is an error, not a question mark in somebody's answer."""
    with pytest.raises(SseError):
        SseParser().feed(b"data: \xff\xfe\n\n")
