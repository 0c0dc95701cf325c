"""From an answer's tokens to what its caller reads: text without stop strings, and calls of tools."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from inference.core.detokenize import Detokenizer
from inference.core.stops import StopMatcher
from inference.core.tool_calls.formats import Format
from inference.core.tool_calls.parsing import CallParser, Gained

TokenBytes = Callable[[int], bytes]


class Reader:
    """One choice's. However the tokens are split into calls of `feed`, the joined result is the same.

    Stop strings end the text alone: half a call would be worth nothing. `form` is None where nothing can be called;
    `only_calls` says that the answer holds no text at all.
    """

    def __init__(
        self, token_bytes: TokenBytes, stops: tuple[str, ...], form: Format | None, *, only_calls: bool = False
    ) -> None:
        self._detokenizer = Detokenizer(token_bytes)
        self._stops = StopMatcher(stops)
        self._parser = CallParser(form) if form is not None else None
        self._only_calls = only_calls

    @property
    def stops(self) -> bool:
        """Whether there are stop strings."""
        return self._stops.any

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found: nothing follows."""
        return self._stops.stopped

    @property
    def called(self) -> bool:
        """Whether the answer calls a tool."""
        return self._parser is not None and self._parser.calls > 0

    def feed(self, tokens: Iterable[int]) -> Gained:
        """What these tokens gave."""
        text = self._detokenizer.feed(tokens)
        if self._parser is None:
            return Gained(self._stops.feed(text))
        gained = self._parser.feed(text)
        gained.text = self._stops.feed(gained.text)
        if self._stops.stopped:
            return Gained(gained.text)
        if gained.pieces:
            # Text ends where calls begin.
            gained.text += self._stops.flush()
        return gained

    def flush(self, *, cut: bool = False) -> str:
        """The text that was held back, when the answer ends without a stop string; `cut` says that more was to come."""
        if self._parser is None:
            return self._stops.flush()
        if self._only_calls:
            return ""
        text = self._stops.feed(self._parser.flush(cut=cut))
        return text if self._stops.stopped else text + self._stops.flush()
