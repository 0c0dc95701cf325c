"""Strings that end an answer, found across the borders of tokens."""

from __future__ import annotations


class StopMatcher:
    """Lets text pass, but for what could still become one of the stop strings.

    The stop string that is complete first ends the answer; of two complete at once the longer one, that is the one
    that began first. However the text is split into calls, the same text passes.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False

    @property
    def any(self) -> bool:
        """Whether there are stop strings at all."""
        return bool(self._stops)

    @property
    def held(self) -> str:
        """Text that waits: it may be the beginning of a stop string."""
        return self._held

    def feed(self, text: str) -> str:
        """The text that may pass now. Once `stopped`, nothing passes any more."""
        if self.stopped or not text:
            return ""
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)[1]]
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, when the answer ends without a stop string."""
        held, self._held = self._held, ""
        return held


def overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that `stop` begins with, less than all of it."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
