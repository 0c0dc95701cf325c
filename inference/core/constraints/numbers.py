"""Numbers within bounds, as trees of how JSON writes them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from .regex.characters import CharSet
from .regex.tree import EMPTY, NEVER, Node, Ref, alt, cat, chars, literal, optional, rep

# Digits that are written where no bound says how many: clients read integers of 64 bits and doubles.
MAX_DIGITS = 15
MAX_EXPONENT_DIGITS = 2
# A bound has at most that many digits before and behind its point.
MAX_BOUND_DIGITS = 40
# Multiples within bounds are written out.
MAX_LISTED = 256
MAX_MULTIPLE = 1024
_ZERO, _NINE = ord("0"), ord("9")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Both ends, and whether they are themselves left out."""

    low: Decimal | None = None
    high: Decimal | None = None
    above: bool = False
    below: bool = False

    def has(self, value: Decimal) -> bool:
        """Whether the value lies within."""
        if self.low is not None and (value < self.low or (self.above and value == self.low)):
            return False
        return self.high is None or value < self.high or (not self.below and value == self.high)


def digits(low: int = 0, high: int = 9) -> Node:
    """One digit of a range."""
    return chars(((_ZERO + low, _ZERO + high),)) if low <= high else NEVER


_DIGIT = digits()


def decimals(bounds: Bounds, *, whole: bool) -> Node:
    """Numbers within the bounds; whole ones have no fraction and no exponent. NEVER where there is none."""
    if bounds.low is None and bounds.high is None:
        return _any(whole=whole)
    negative = _magnitudes(
        Bounds(
            None if bounds.high is None else -bounds.high,
            None if bounds.low is None else -bounds.low,
            bounds.below,
            bounds.above,
        ),
        whole,
    )
    return alt([_magnitudes(bounds, whole), cat([literal("-"), negative])])


def _any(*, whole: bool) -> Node:
    number = cat([optional(literal("-")), alt([literal("0"), cat([digits(1), rep(_DIGIT, 0, MAX_DIGITS - 1)])])])
    if whole:
        return number
    fraction = cat([literal("."), rep(_DIGIT, 1, MAX_DIGITS)])
    sign = optional(chars(((43, 43), (45, 45))))
    exponent = cat([chars(((69, 69), (101, 101))), sign, rep(_DIGIT, 1, MAX_EXPONENT_DIGITS)])
    return cat([number, optional(fraction), optional(exponent)])


def _magnitudes(bounds: Bounds, whole: bool) -> Node:
    """Numbers without a sign within the bounds."""
    low, above = bounds.low, bounds.above
    if low is None or low < 0:
        low, above = Decimal(0), False
    high = bounds.high
    if high is not None and (high < low or (high == low and (above or bounds.below))):
        return NEVER
    length = max(len(_digits_of(low)[0]), MAX_DIGITS) if high is None else len(_digits_of(high)[0])
    found: list[Node] = []
    for count in range(len(_digits_of(low)[0]), length + 1):
        smallest, largest = Decimal(0 if count == 1 else 10 ** (count - 1)), Decimal(10**count)
        if low >= smallest:
            smallest, over = low, above
        else:
            over = False
        if high is not None and high < largest:
            largest, under = high, bounds.below
        else:
            under = True
        found.append(_of_length(count, _Range(smallest, largest, over, under), whole))
    return alt(found)


@dataclass(frozen=True, slots=True)
class _Range:
    low: Decimal
    high: Decimal
    above: bool
    below: bool


def _digits_of(value: Decimal) -> tuple[str, str]:
    """Before the point, and behind it without zeros at the end."""
    before, _, behind = format(value, "f").partition(".")
    return before.lstrip("-").lstrip("0") or "0", behind.rstrip("0")


def _of_length(count: int, within: _Range, whole: bool) -> Node:
    """Numbers of `count` digits before the point; `within.high` may be the first that has one more."""
    return _Digits(count, within, whole).tail(0, True, len(_digits_of(within.high)[0]) <= count)


class _Digits:
    """Numbers of one length, digit by digit, while they may still equal a bound: `low` and `high` say so."""

    def __init__(self, count: int, within: _Range, whole: bool) -> None:
        (low_i, low_f), (high_i, high_f) = _digits_of(within.low), _digits_of(within.high)
        behind = max(len(low_f), len(high_f))
        self._count, self._within, self._whole = count, within, whole
        self._size = count + behind
        self._low = low_i.rjust(count, "0") + low_f.ljust(behind, "0")
        self._high = high_i + high_f.ljust(behind, "0")
        # Beyond 15 digits in all a double could not tell a number from a bound that is left out.
        self._room = 0 if whole else max(MAX_DIGITS - count, behind + 1)

    def _ends(self, at: int, low: bool, high: bool) -> bool:
        """Whether a number may end before its digit `at`, at or behind the point."""
        if at < self._count or (low and (self._low[at:].strip("0") or self._within.above)):
            return False
        return not high or bool(self._high[at:].strip("0")) or not self._within.below

    def tail(self, at: int, low: bool, high: bool) -> Node:
        """From digit `at` on, the end included."""
        stop = EMPTY if self._ends(at, low, high) else NEVER
        if at >= self._count and (self._whole or at >= self._count + self._room or (at >= self._size and high)):
            return stop
        if not low and not high:
            return self._free(at)
        more = self._above_low(stop) if at >= self._size else self._step(at, low, high)
        return alt([stop, cat([literal("."), more]) if at == self._count else more])

    def _free(self, at: int) -> Node:
        """Any digits from `at` on."""
        if at < self._count:
            return cat([rep(_DIGIT, self._count - at, self._count - at), self.tail(self._count, False, False)])
        more = rep(_DIGIT, 1, self._count + self._room - at)
        return optional(cat([literal("."), more])) if at == self._count else optional(more)

    def _above_low(self, stop: Node) -> Node:
        """Digits behind all of the lower end's: where that is left out, one of them is not zero."""
        if stop != NEVER:
            return rep(_DIGIT, 1, self._room)
        return cat([rep(literal("0"), 0, self._room), digits(1), rep(_DIGIT, 0, self._room)])

    def _step(self, at: int, low: bool, high: bool) -> Node:
        first, last = int(self._low[at]) if low else 0, int(self._high[at]) if high else 9
        if first >= last:
            return cat([digits(first, last), self.tail(at + 1, low, high)]) if first == last else NEVER
        parts: list[Node] = []
        if low:
            parts.append(cat([digits(first, first), self.tail(at + 1, True, False)]))
        if high:
            parts.append(cat([digits(last, last), self.tail(at + 1, False, True)]))
        parts.append(cat([digits(first + low, last - high), self.tail(at + 1, False, False)]))
        return alt(parts)


def multiples(of: int, bounds: Bounds) -> Node | None:
    """Whole multiples of `of` within bounds, written out; None where they are too many."""
    if bounds.low is None or bounds.high is None:
        return None
    first, last = -(-bounds.low // of), bounds.high // of
    if last - first > MAX_LISTED:
        return None
    values = [Decimal(number * of) for number in range(int(first) - 1, int(last) + 2)]
    return alt(literal(str(int(value))) for value in values if bounds.has(value))


def remainders(of: int, name: str) -> dict[str, Node]:
    """Rules for the digits of a multiple of `of`: what may follow digits that leave a remainder."""

    def row(left: int) -> Node:
        by_next: dict[int, list[int]] = {}
        for digit in range(10):
            by_next.setdefault((left * 10 + digit) % of, []).append(digit)
        steps: list[Node] = []
        for following, members in by_next.items():
            of_these: CharSet = tuple((_ZERO + digit, _ZERO + digit) for digit in members)
            steps.append(cat([chars(of_these), Ref(f"{name}_{following}")]))
        return alt([*([EMPTY] if left == 0 else []), *steps])

    return {f"{name}_{left}": row(left) for left in range(of)}
