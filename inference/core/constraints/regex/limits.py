"""An expression held to lengths as well: the smaller of what both say, never more."""

from __future__ import annotations

from .tree import EMPTY, NEVER, Alt, Cat, Chars, Node, Ref, Rep, alt, cat, lengths, rep


def within(node: Node, low: int, high: int | None) -> Node:
    """`node` where it has from `low` to `high` characters. NEVER where that cannot be said by counts alone.

    What has the right lengths already stays as it is. Else repetitions are narrowed, so some texts that would do may be
    left out; every text that is left has a right length.
    """
    for greedy in (False, True):
        narrowed = node if high is None else _at_most(node, high, greedy)
        if low and narrowed != NEVER:
            narrowed = _at_least(narrowed, low)
        if narrowed != NEVER:
            return narrowed
    return NEVER


def _at_most(node: Node, high: int, greedy: bool) -> Node:
    shortest, longest = lengths(node)
    if longest is not None and longest <= high:
        return node
    if shortest > high:
        return NEVER
    match node:
        case Alt():
            return alt(_at_most(part, high, greedy) for part in node.parts)
        case Cat():
            return _shared(node, high, greedy)
        case Rep():
            return _fewer(node, high, greedy)
        case Chars() | Ref():
            return node


def _shared(node: Cat, high: int, greedy: bool) -> Node:
    """What is left beyond the shortest text goes to the parts, evenly or as much as one can take after the other."""
    each = [lengths(part) for part in node.parts]
    spare = high - sum(low for low, _ in each)
    hungry = [i for i, (low, most) in enumerate(each) if most is None or most - low > 0]
    # Those that want least first, so that what they leave goes to the others.
    hungry.sort(key=lambda i: float("inf") if each[i][1] is None else (each[i][1] or 0) - each[i][0])
    parts = list(node.parts)
    for number, i in enumerate(hungry):
        low, most = each[i]
        share = spare if greedy else spare // (len(hungry) - number)
        given = share if most is None else min(share, most - low)
        parts[i] = _at_most(parts[i], low + given, greedy)
        used = lengths(parts[i])[1] or 0
        spare -= max(0, used - low)
    return cat(parts)


def _fewer(node: Rep, high: int, greedy: bool) -> Node:
    shortest, longest = lengths(node.node)
    inner = node.node
    if longest is None or longest * max(node.low, 1) > high:
        # Few long ones, or many short ones: about as many as each is long.
        each = max(shortest, high // max(node.low, 1) if node.low else high if greedy else round(high**0.5), 1)
        inner = _at_most(inner, min(each, high), greedy)
        longest = lengths(inner)[1] or 0
    if inner == NEVER or longest == 0:
        return EMPTY if node.low == 0 else NEVER
    times = high // longest
    if node.high is not None:
        times = min(times, node.high)
    return rep(inner, node.low, times) if times >= node.low else NEVER


def _at_least(node: Node, low: int) -> Node:
    shortest, longest = lengths(node)
    if shortest >= low:
        return node
    if longest is not None and longest < low:
        return NEVER
    match node:
        case Alt():
            return alt(_at_least(part, low) for part in node.parts)
        case Cat():
            return _raised(node, low)
        case Rep():
            return _more(node, low)
        case Chars() | Ref():
            return node


def _raised(node: Cat, low: int) -> Node:
    parts = list(node.parts)
    missing = low - lengths(node)[0]
    for i in sorted(range(len(parts)), key=lambda i: _room(parts[i]), reverse=True):
        if missing <= 0:
            break
        before, longest = lengths(parts[i])
        wanted = before + missing if longest is None else min(before + missing, longest)
        raised = _at_least(parts[i], wanted)
        if raised != NEVER:
            parts[i] = raised
            missing -= lengths(raised)[0] - before
    return cat(parts) if missing <= 0 else NEVER


def _room(node: Node) -> float:
    low, high = lengths(node)
    return float("inf") if high is None else high - low


def _more(node: Rep, low: int) -> Node:
    shortest, _ = lengths(node.node)
    if shortest == 0:
        return NEVER
    times = -(-low // shortest)
    if node.high is not None and times > node.high:
        inner = _at_least(node.node, -(-low // node.high))
        return rep(inner, node.high, node.high) if inner != NEVER else NEVER
    return rep(node.node, max(node.low, times), node.high)
