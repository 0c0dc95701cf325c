"""The seam of an answer that another model goes on with from its text: what is said twice, and the space between words.

A continuation may begin with what it was to continue (all of it, or its last words), and servers cut white space off
either side. Its beginning is held until it is known how it joins; nothing that the caller has is ever taken back.
"""

from __future__ import annotations

import re
from typing import Final

# What may be repeated, besides all of a text that is not longer than this; more is not looked for.
_MAX_OVERLAP: Final = 400
_MAX_BEFORE: Final = 16_384
# Of the text before, so much is looked at for words that are known to be whole.
_KNOWN_CHARS: Final = 20_000
_WORD: Final = re.compile(r"\w+")
_LAST: Final = re.compile(r"\w+$")
# From here on scripts write no spaces between words (Chinese, Japanese, Korean and what follows).
_WIDE: Final = "\u2e80"
# Short words that are whole whenever a text ends with them.
_WHOLE: Final = frozenset(
    {
        *(
            "a",
            "an",
            "and",
            "are",
            "as",
            "at",
            "be",
            "but",
            "by",
            "can",
            "for",
            "from",
            "had",
            "has",
            "have",
            "he",
            "i",
        ),
        *("if", "in", "is", "it", "its", "of", "on", "or", "our", "she", "so", "than", "that", "the", "their", "there"),
        *("they", "this", "to", "was", "we", "were", "which", "will", "with", "you", "your"),
    }
)


class Seam:
    """Joins one continuation to the text before it. `known` is more text, such as the prompt's, to know words by."""

    __slots__ = ("_before", "_held", "_known", "open")

    def __init__(self, before: str, known: str = "") -> None:
        self._before = before[-_MAX_BEFORE:]
        self._known = known[-_KNOWN_CHARS:]
        self._held = ""
        # Whether it is still to be seen how the continuation joins.
        self.open = True

    def push(self, text: str) -> str:
        """Take a piece of the continuation; what of it, and of what was held, goes to the caller."""
        if not self.open:
            return text
        self._held += text
        begun = self._held.lstrip()
        if not begun or _may_still_repeat(self._before.rstrip(), begun):
            return ""
        return self.end()

    def end(self) -> str:
        """No more comes that could change how it joins: what was held, joined."""
        if not self.open:
            return ""
        self.open = False
        held, self._held = self._held, ""
        return joined(self._before, held, self._known)


def joined(before: str, text: str, known: str = "") -> str:
    """What of a continuation is to be put behind `before`."""
    whole, begun = before.rstrip(), text.lstrip()
    repeated = _repeated(whole, begun, spaced=len(begun) != len(text) and len(whole) == len(before))
    if repeated:
        rest = begun[repeated:]
        return rest.lstrip(" ") if len(whole) != len(before) else rest
    if before.endswith(" ") and text.startswith(" "):
        return text.lstrip(" ")
    return f" {text}" if _lacks_space(before, text, known) else text


def _may_still_repeat(before: str, begun: str) -> bool:
    """Whether more of the continuation could make it a repetition of the end of what was before."""
    if before.startswith(begun):
        return True
    tail = before[-_MAX_OVERLAP:]
    # Where all of it is a repetition, the next character says whether the word goes on.
    return any(tail.startswith(begun, at) for at in range(len(tail) - len(begun) + 1))


def _repeated(before: str, begun: str, *, spaced: bool) -> int:
    """How many characters of the continuation repeat the end of the text before."""
    if before and begun.startswith(before) and _tells(before, begun[len(before) :], spaced=False):
        return len(before)
    for size in range(min(len(before), len(begun), _MAX_OVERLAP), 0, -1):
        if before.endswith(begun[:size]) and _begins_word(before, len(before) - size):
            return size if _tells(begun[:size], begun[size:], spaced=spaced) else 0
    return 0


def _tells(repeated: str, rest: str, *, spaced: bool) -> bool:
    """Whether so much in common is no chance. A space before it says that the words were meant to come again."""
    words = [word for word in _WORD.findall(repeated) if not word.isnumeric()]
    if not words:
        return False
    wide = sum(char >= _WIDE for char in repeated)
    if wide:
        return wide >= 4
    cut = bool(rest) and rest[0].isalnum() and repeated[-1].isalnum()
    if spaced:
        return len(words) >= 3 or (len(words) == 2 and len(repeated) >= 8 and not cut)
    return len(words) >= 2 or len(words[0]) >= (4 if cut else 2)


def _begins_word(text: str, at: int) -> bool:
    if at == 0:
        return True
    before, first = text[at - 1], text[at]
    return not (before.isalnum() and first.isalnum()) or before >= _WIDE or first >= _WIDE


def _lacks_space(before: str, text: str, known: str) -> bool:
    """Whether a space between the two was lost, as far as the words tell."""
    if not before or not text or text[0] >= _WIDE or before[-1] >= _WIDE or not text[0].isalpha():
        return False
    if before[-1] in ",;:!?":
        return True
    if before[-1] == ".":
        return text[0].isupper()
    last, first = _LAST.search(before), _WORD.match(text)
    if last is None or first is None or not before[-1].isalpha():
        return False
    words = set(_WORD.findall(f"{before[: last.start()][-_KNOWN_CHARS:]} {known}".lower()))
    if (last[0] + first[0]).lower() in words:
        return False
    return last[0].lower() in words or last[0].lower() in _WHOLE or (last[0][-1].islower() and first[0][0].isupper())
