"""Characters beyond the basic plane, which servers that count in UTF-16 may send in two halves."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


def whole(text: str) -> str:
    """The text with pairs joined, and U+FFFD for a half that is alone."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", errors="surrogatepass").decode("utf-16-le", errors="replace")


class Halves(Generic[K]):
    """Joins characters that a provider split over two pieces of a string."""

    def __init__(self) -> None:
        self._held: dict[K, str] = {}

    def join(self, key: K, text: str) -> str:
        """What can be given out of the string `key` now that `text` came for it; its last half may wait."""
        if not text or (text.isascii() and not self._held):
            return text
        text = self._held.pop(key, "") + text
        if "\ud800" <= text[-1] <= "\udbff":
            self._held[key] = text[-1]
            text = text[:-1]
        return whole(text)

    def lost(self) -> list[tuple[K, str]]:
        """The strings that ended with a half, each with what stands for it."""
        lost = [(key, "\ufffd") for key in self._held]
        self._held.clear()
        return lost
