"""Detokenizing and stop strings: however tokens are split, the text is the same."""

from hypothesis import given
from hypothesis import strategies as st

from inference.core.detokenize import Detokenizer
from inference.core.stops import StopMatcher

CHARACTERS = "ab \n<|é東🌊👩‍👩‍👧"
texts = st.text(alphabet=CHARACTERS, max_size=40)


def one_byte(token: int) -> bytes:
    return bytes([token])


@given(texts, st.lists(st.integers(1, 4), max_size=60))
def test_any_split_of_bytes_gives_the_same_text(text: str, sizes: list[int]) -> None:
    raw = list(text.encode())
    detokenizer = Detokenizer(one_byte)
    joined, at = "", 0
    for size in sizes:
        piece = detokenizer.feed(raw[at : at + size])
        assert "\ufffd" not in piece
        joined, at = joined + piece, at + size
    assert joined + detokenizer.feed(raw[at:]) == text


@given(st.binary(max_size=30), st.integers(0, 30))
def test_bytes_that_are_no_text_read_alike_however_they_are_split(raw: bytes, cut: int) -> None:
    whole, halves = Detokenizer(one_byte), Detokenizer(one_byte)
    assert whole.feed(raw) == halves.feed(raw[:cut]) + halves.feed(raw[cut:])


def by_definition(text: str, stops: tuple[str, ...]) -> str:
    """Character by character: the text before the first stop string to be complete."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


@given(
    st.text(alphabet="abc", max_size=40),
    st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=4),
    st.lists(st.integers(1, 6), max_size=40),
)
def test_any_split_of_text_stops_at_the_same_place(text: str, stops: list[str], sizes: list[int]) -> None:
    matcher = StopMatcher(tuple(stops))
    passed, at = "", 0
    for size in sizes:
        passed, at = passed + matcher.feed(text[at : at + size]), at + size
        assert by_definition(text, tuple(stops)).startswith(passed)
    passed += matcher.feed(text[at:])
    if not matcher.stopped:
        passed += matcher.flush()
    assert passed == by_definition(text, tuple(stops))


def test_only_what_could_become_a_stop_string_is_held_back() -> None:
    matcher = StopMatcher(("###",))
    assert matcher.feed("one #") == "one "
    assert matcher.held == "#"
    assert matcher.feed("# two") == "## two"
    assert matcher.feed("##") == ""
    assert matcher.feed("# three") == ""
    assert matcher.stopped
    assert matcher.feed("more") == ""
