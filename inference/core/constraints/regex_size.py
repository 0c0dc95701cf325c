"""How large a regular expression becomes when its counted repetitions are written out."""

from __future__ import annotations

import re
from collections.abc import Callable

# What one place of a text is matched by: an escape, a class, an opening or closing group, a bar, any other character.
_PIECE = re.compile(r"\\.|\[\^?(?:\\.|[^\]\\])*\]|\(\?:|[()|]|[^()|]", re.DOTALL)
_REPEAT = re.compile(r"\{(\d+)(?:,(\d*))?\}|[*+?]")


def written_out(source: str, weigh: Callable[[str], float] = lambda _: 1) -> tuple[float, int]:
    """Places in the expression once every `{m,n}` is n copies of what it repeats, and the largest count in it.

    An estimate from above for what a compiler accepts; anything else may be given any size. A place counts for what
    `weigh` says of the character, escape or class that stands there.
    """
    sizes: list[float] = [0]
    last: float = 0
    largest, at = 0, 0
    while at < len(source):
        repeat = _REPEAT.match(source, at)
        if repeat is not None:
            counts = [int(count) for count in repeat.groups() if count]
            times = max(counts, default=1)
            largest = max(largest, *counts, 0)
            sizes[-1] += last * max(times - 1, 0)
            last, at = last * max(times, 1), repeat.end()
            continue
        piece = _PIECE.match(source, at)
        assert piece is not None  # the last alternatives match any character
        at = piece.end()
        match piece.group():
            case "(" | "(?:":
                sizes.append(0)
            case ")":
                last = sizes.pop() if len(sizes) > 1 else 0
                sizes[-1] += last
            case "|":
                last = 0
            case _:
                last = weigh(piece.group())
                sizes[-1] += last
    return sum(sizes), largest
