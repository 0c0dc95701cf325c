"""The beginning of an assistant's answer, as a provider takes it that refuses white space at its end."""

from __future__ import annotations

from inference.core.checks import RequestError


def without_last_space(text: str) -> tuple[str, str]:
    """The text up to its last word, and the white space behind it. Raises RequestError where there is no word."""
    kept = text.rstrip()
    if not kept:
        raise RequestError("generation.resume", "this provider goes on from words only", capability=True)
    return kept, text[len(kept) :]


class CutSpace:
    """Takes out of a continuation's beginning the white space that was cut off before it, which its caller has."""

    def __init__(self, cut: str) -> None:
        self._cut = cut

    def after(self, text: str) -> str:
        """The next piece of the continuation, as it goes on behind what the caller has."""
        if not self._cut or not text:
            return text
        pairs = zip(self._cut, text, strict=False)
        common = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(self._cut), len(text)))
        # More of it may come with the next piece, once this one is nothing else.
        self._cut = self._cut[common:] if common == len(text) else ""
        return text[common:]


# A shorter text may well be what the model goes on with.
_TELLING = 8


class Echo:
    """Takes the text that an answer goes on from out of its beginning, where a server says it again.

    llama.cpp's and Mistral's do, vLLM does not. Nothing is given out until it is known which of them it is.
    """

    def __init__(self, text: str) -> None:
        self._text = text.strip()
        self._last_space = text[len(text.rstrip()) :]
        self._held: str | None = "" if len(self._text) >= _TELLING else None
        self._cut = CutSpace("")

    def after(self, piece: str) -> str:
        """What a piece of the answer adds to what the caller has."""
        if self._held is None:
            return self._cut.after(piece)
        self._held += piece
        said = self._held.lstrip()
        if self._text.startswith(said):
            return ""
        if not said.startswith(self._text):
            return self.end()
        self._held = None
        # White space that was lost on the way there is the caller's already.
        self._cut = CutSpace(self._last_space)
        return self._cut.after(said[len(self._text) :])

    def end(self) -> str:
        """What was held, where the answer ends or turns out to be no repetition."""
        held, self._held = self._held or "", None
        return "" if held.strip() == self._text else held
