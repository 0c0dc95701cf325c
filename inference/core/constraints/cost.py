"""What compiling a grammar costs, told from its rules: a compile cannot be interrupted, so it is judged before.

Nearly all of the time goes into walking the vocabulary once for each place where a character is read: the whole of it
where any character may stand, next to none of it for a digit. A rule is compiled once, however often it is used.
"""

from __future__ import annotations

from collections.abc import Callable

from .regex.characters import CharSet
from .regex.tree import Alt, Cat, Chars, Node, Ref, Rep
from .rules import Rules

# Repetitions up to here are written out by the compiler; longer ones are stepped through one by one.
LONGEST = 128
# Bit c of a class stands for the ASCII character c, this one for all others.
OTHERS = 1 << 128
# Shares of a whole walk, measured: a byte of a literal, a class at least, and a rule wherever it is used.
LITERAL, CLASS, USE = 1 / 256, 1 / 64, 1 / 32


def walks(rules: Rules, share: Callable[[int], float], written_out: int = LONGEST) -> float:
    """Whole walks of the vocabulary that compiling the rules takes, about; see Rules.written for `written_out`.

    `share` says how much of the vocabulary is made of a class's characters alone.
    """
    return sum(_walks(body, share, written_out) for body in rules.named.values())


def _walks(node: Node, share: Callable[[int], float], written_out: int) -> float:
    match node:
        case Chars():
            return _place(node.of, share)
        case Cat() | Alt():
            return sum(_walks(part, share, written_out) for part in node.parts)
        case Ref():
            return USE
        case Rep():
            return _repeated(node, share, written_out)


def _place(of: CharSet, share: Callable[[int], float]) -> float:
    if len(of) == 1 and of[0][0] == of[0][1]:
        return LITERAL * len(chr(of[0][0]).encode())
    return max(share(members(of)), CLASS)


def _repeated(node: Rep, share: Callable[[int], float], written_out: int) -> float:
    once = _walks(node.node, share, written_out)
    if isinstance(node.node, Chars) and (node.high or 0) > written_out:
        return once * (node.low + 1)
    times = node.low + 1 if node.high is None else node.high
    return once * max(1, min(times, LONGEST))


def members(of: CharSet) -> int:
    """The characters of a class as bits: see OTHERS."""
    bits = 0
    for low, high in of:
        if low < 128:
            bits |= (1 << (min(high, 127) + 1)) - (1 << low)
        if high >= 128:
            bits |= OTHERS
    return bits
