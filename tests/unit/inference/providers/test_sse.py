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
    said = [SseEvent(name, "\n".join(data)) for name, data in events]
    # As in a browser, what has no data is no event.
    assert _parse(stream, cuts) == [event for event in said if event.data.strip()]


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


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r"])
def test_a_last_event_without_its_empty_line(end: bytes) -> None:
    """Is asked for at the stream's end; it may have been cut, so it never comes by itself."""
    parser = SseParser()
    assert parser.feed(b"data: whole\n\nevent: e\ndata: a\ndata: b" + end) == [SseEvent("", "whole")]
    assert parser.finish() == SseEvent("e", "a\nb")
    assert parser.finish() is None


@pytest.mark.parametrize("stream", [b"", b"\n", b": comment", b"data:", b"data: \n\n", b"event: ping\n\n"])
def test_what_holds_no_data_is_no_event(stream: bytes) -> None:
    """Keep-alives of every form."""
    parser = SseParser()
    assert parser.feed(stream) == []
    assert parser.finish() is None


def test_a_long_line_in_small_pieces_is_looked_through_once() -> None:
    """Each byte is searched for a line's end but once."""
    parser = SseParser()
    for _ in range(200_000):
        parser.feed(b"x")
    assert parser._scanned == 200_000
    assert parser.feed(b"\ndata: a\n\n") == [SseEvent("", "a")]
