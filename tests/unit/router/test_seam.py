"""How a continuation joins the text before it: words said twice, lost and doubled spaces, in pieces of any size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.seam import Seam, joined

CASES = {
    "as it should be": ("The capital of France", " is Paris.", " is Paris."),
    "within a word": ("an interna", "tional answer", "tional answer"),
    "last words again": ("The quick brown fox", "brown fox jumps over", " jumps over"),
    "last words again, spaced": ("The quick brown fox", " quick brown fox jumps", " jumps"),
    "last word again": ("The quick brown fox", "fox jumps", " jumps"),
    "a short last word again": ("To be or not to", "to be", " be"),
    "all of it again": ("I think so", "I think so, yes.", ", yes."),
    "all of it again after a space": ("I think so. ", "I think so. Yes.", "Yes."),
    "the word that was cut": ("an interna", "international answer", "tional answer"),
    "space lost after a word": ("The capital of France is", "Paris.", " Paris."),
    "space lost before a small letter": ("one of the", "best answers", " best answers"),
    "space lost after a known word": ("A fox is a fox. The fox", "jumps", " jumps"),
    "space lost after a comma": ("First,", "second", " second"),
    "space lost after a sentence": ("It ends.", "Then", " Then"),
    "space doubled": ("one two ", " three", "three"),
    "a word that is known whole goes on": ("internal and international: interna", "tional", "tional"),
    "meant twice": ("I know that", " that is so", " that is so"),
    "a longer word, cut as the last one": ("The quick brown fox", "foxes", "foxes"),
    "another word": ("in the", " theory", " theory"),
    "line and indentation": ("def f():\n", "    return 1", "    return 1"),
    "a paragraph": ("One.\n\n", "Two.", "Two."),
    "numbers in a row": ("0 0 0", " 0 0", " 0 0"),
    "digits of one number": ("3.", "14", "14"),
    "an attribute": ("os.", "path", "path"),
    "chinese": ("人工智能是", "计算机科学", "计算机科学"),
    "chinese again": ("人工智能是计算机科学", "计算机科学的一个分支", "的一个分支"),
    "nothing more": ("done", "", ""),
    "nothing before": ("", " Hello", " Hello"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_joins_as_the_words_tell(case: str) -> None:
    before, text, expected = CASES[case]
    assert joined(before, text) == expected


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pieces_join_as_the_whole(case: str, size: int) -> None:
    before, text, expected = CASES[case]
    seam = Seam(before)
    assert "".join(seam.push(text[i : i + size]) for i in range(0, len(text), size)) + seam.end() == expected


WORDS = st.lists(st.sampled_from(["alpha", "beta", "gamma", "the", "of", "delta"]), min_size=1, max_size=12)


@given(st.text(max_size=60), st.lists(st.text(max_size=8), max_size=10))
def test_whatever_comes_in_whatever_pieces_is_an_end_of_it_with_a_space_at_most(before: str, pieces: list[str]) -> None:
    seam = Seam(before)
    out = "".join(map(seam.push, pieces)) + seam.end()
    text = "".join(pieces)
    assert text.endswith(out) or out == f" {text}"


@given(WORDS, WORDS, st.integers(2, 6), st.integers(1, 9))
def test_repeated_words_are_said_once(before: list[str], after: list[str], again: int, size: int) -> None:
    """However many of the last words come again, at least two of them, and however they are cut into pieces."""
    said = [f"{word}{i}" for i, word in enumerate(before)]
    more = [f"{word}{i + 100}" for i, word in enumerate(after)]
    text = " ".join([*said[-again:], *more])
    seam = Seam(" ".join(said))
    out = "".join(seam.push(text[i : i + size]) for i in range(0, len(text), size)) + seam.end()
    assert " ".join(said) + out == " ".join([*said, *more])


def test_little_is_held_and_nothing_once_it_is_joined() -> None:
    """The first letter that repeats nothing lets it go, and later repetitions are the answer's own."""
    seam = Seam("one two three")
    assert seam.push(" four") == " four"
    assert not seam.open
    assert seam.push(" one two three") == " one two three"
