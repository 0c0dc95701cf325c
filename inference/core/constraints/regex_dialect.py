"""What of regular expressions the grammar compiler keeps to; everything else is refused here, by name.

xgrammar passes over an anchor within an expression, over looking ahead and over escapes that it does not know, and
writes the expression to standard error as it does. What stands below was tried against xgrammar 0.2.8, piece by piece;
the tests repeat it.
"""

from __future__ import annotations

import re

# One piece of an expression: an escape, a class, the opening of a group, whatever repeats, any other character.
_PIECE = re.compile(
    r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|u\{[0-9a-fA-F]{1,6}\}|c[a-zA-Z]|.|$)"
    r"|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P?<[A-Za-z_]\w*>|\(\?:|\(\?<?.?|\{\d+(?:,\d*)?\}|.",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u\{[0-9a-fA-F]{1,6}\}|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|c[a-zA-Z]|.|$)", re.DOTALL)
_KNOWN = frozenset("dDwWsSnrtfv0")
_SPECIAL = frozenset("^$\\.*+?()[]{}|/-")
_REPEATS = "*+?{"
_GROUPS = {
    "(?=": "looking ahead",
    "(?!": "looking ahead",
    "(?<=": "looking behind",
    "(?<!": "looking behind",
    "(?>": "an atomic group",
    "(?#": "a comment",
}


class NotHeldTo(ValueError):
    """The expression has what the compiler would pass over; the message names it, and shows no more of it."""


def plain(source: str) -> str:
    """The expression as the compiler takes it: without anchors that say nothing, and escapes that need not be.

    It is matched against a whole text, so anchors at its ends say nothing. Raises NotHeldTo.
    """
    pieces = [_checked(piece) for piece in _PIECE.findall(source)]
    for step in (1, -1):
        _drop_anchors(pieces, step)
        pieces.reverse()
    return "".join(pieces)


def _checked(piece: str) -> str:
    if piece.startswith("\\"):
        return _escape(piece)
    if piece.startswith("[") and len(piece) > 1:
        return _ESCAPE.sub(lambda found: _escape(found.group()), piece)
    if piece.startswith("(?") and piece != "(?:":
        if not piece.endswith(">") or piece == "(?>":
            raise NotHeldTo(f"{_GROUPS.get(piece, 'a group with flags')} cannot be held to")
        # A group's name is of no use here.
        return "(?:"
    return piece


def _escape(piece: str) -> str:
    what = piece[1:]
    if len(what) > 1 or what in _KNOWN or what in _SPECIAL:
        return piece
    if what.isdigit():
        raise NotHeldTo("a reference back to a group cannot be held to")
    if not what or (what.isascii() and what.isalpha()):
        raise NotHeldTo(f"the escape \\{what} cannot be held to")
    return what


def _drop_anchors(pieces: list[str], step: int) -> None:
    """Take out each ^ before which nothing can stand; with step -1, of the reversed pieces, each $ before the end."""
    anchor, opening, closing = ("^", "(", ")") if step > 0 else ("$", ")", "(")
    at_edge, kept = True, []
    # Of each open group: whether it begins at the edge, whether anchors were taken out, whether it is repeated.
    groups = [[True, False, False]]
    for i, piece in enumerate(pieces):
        if piece == anchor:
            if not at_edge or _repeated(pieces, i, step, _REPEATS):
                raise NotHeldTo("^ and $ can be held to at the ends of an alternative alone")
            for group in groups:
                group[1] = True
            continue
        kept.append(piece)
        if piece[0] == opening:
            groups.append([at_edge, False, _repeated(pieces, i, step, "*+{")])
        elif piece[0] == closing and len(groups) > 1:
            _, dropped, repeated = groups.pop()
            at_edge = False
            if dropped and (repeated or _repeated(pieces, i, step, "*+{")):
                raise NotHeldTo("^ and $ within what is repeated cannot be held to")
        elif piece == "|":
            at_edge = groups[-1][0]
        elif not _repeats(piece, _REPEATS):
            at_edge = False
    pieces[:] = kept


def _repeated(pieces: list[str], i: int, step: int, marks: str) -> bool:
    """Whether what follows piece i, in the expression's own order, is a repetition by one of `marks`."""
    return 0 <= i + step < len(pieces) and _repeats(pieces[i + step], marks)


def _repeats(piece: str, marks: str) -> bool:
    return piece[0] in marks and (piece[0] != "{" or len(piece) > 1)
