"""Drawing tokens from logits without sorting them.

Tokens lie side by side on [0, 1), the likeliest first, each as wide as it is likely; a draw is a point there. Top-k,
top-p and min-p each cut this line at some place, so that only the shortest mass that they leave matters. A place on the
line is found by bisecting the value of the logits there: with 32 bits of a float that is 32 passes over a row, which
stays in the cache, where sorting a vocabulary of 128,256 takes many times as long.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from inference.adapters.torch.sampling import Filters


@triton.jit
def _ordered(value):
    """Integers in the order of the floats."""
    bits = value.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _tempered(row, column, width, temperature):
    return tl.load(row + column, mask=column < width, other=float("-inf")) / temperature


@triton.jit
def _beyond(row, width, temperature, peak, minimum, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """Mass, against the likeliest's, or number of the tokens whose ordered logit is at least `least`."""
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        value = _tempered(row, column, width, temperature)
        inside = (_ordered(value) >= minimum) & (column < width)
        if COUNT:
            total += tl.where(inside, 1.0, 0.0)
        else:
            total += tl.where(inside, tl.exp(value - peak), 0.0)
    # Few numbers were added in each place; where the places meet, float32 would lose what tells neighbours apart.
    return tl.sum(total.to(tl.float64), 0)


@triton.jit
def _level(row, width, temperature, peak, wanted, STRICT: tl.constexpr, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """The highest ordered logit with at least `wanted` (STRICT: more than that) at or beyond it."""
    low = tl.cast(-2147483648, tl.int64)
    high = _ordered(peak).to(tl.int64)
    for _ in range(32):
        middle = low + (high - low + 1) // 2
        found = _beyond(row, width, temperature, peak, middle.to(tl.int32), COUNT, BLOCK)
        enough = found > wanted if STRICT else found >= wanted
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle - 1)
        high = tl.maximum(high, low)
    return low


@triton.jit
def _mass_at(level, temperature, peak):
    """Mass of one token at this ordered logit."""
    order = level.to(tl.int32)
    return tl.exp((order ^ ((order >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True) - peak).to(tl.float64)


@triton.jit
def _draw(logits, rows, temperatures, top_ks, top_ps, min_ps, chances, out, width, BLOCK: tl.constexpr):
    index = tl.program_id(0)
    row = logits + tl.load(rows + index) * width
    temperature = tl.load(temperatures + index)
    top_k, top_p, min_p = tl.load(top_ks + index), tl.load(top_ps + index), tl.load(min_ps + index)
    highest = tl.full([BLOCK], float("-inf"), tl.float32)
    for first in range(0, width, BLOCK):
        highest = tl.maximum(highest, _tempered(row, first + tl.arange(0, BLOCK), width, temperature))
    peak = tl.max(highest, 0)
    mass = _beyond(row, width, temperature, peak, -2147483648, False, BLOCK)
    if (top_k > 0) & (top_k < width):
        level = _level(row, width, temperature, peak, top_k.to(tl.float64), False, True, BLOCK)
        above = (level + 1).to(tl.int32)
        # Of equals at the border only as many as fit.
        ties = top_k - _beyond(row, width, temperature, peak, above, True, BLOCK)
        mass = _beyond(row, width, temperature, peak, above, False, BLOCK) + ties * _mass_at(level, temperature, peak)
    if top_p < 1.0:
        wanted = mass * top_p
        level = _level(row, width, temperature, peak, wanted, False, False, BLOCK)
        above = _beyond(row, width, temperature, peak, (level + 1).to(tl.int32), False, BLOCK)
        each = _mass_at(level, temperature, peak)
        mass = tl.minimum(mass, above + tl.ceil((wanted - above) / each) * each)
    if min_p > 0.0:
        minimum = _ordered(peak + tl.log(min_p))
        mass = tl.minimum(mass, _beyond(row, width, temperature, peak, minimum, False, BLOCK))
    # The likeliest always stays.
    point = tl.load(chances + index) * tl.maximum(mass, 1.0)
    level = _level(row, width, temperature, peak, point, True, False, BLOCK)
    above = _beyond(row, width, temperature, peak, (level + 1).to(tl.int32), False, BLOCK)
    place = ((point - above) / _mass_at(level, temperature, peak)).to(tl.int32)
    # Of equals the one at this place, by their numbers; rounding may leave none there, then the last.
    before = 0
    token = 0
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        equal = (_ordered(_tempered(row, column, width, temperature)) == level.to(tl.int32)) & (column < width)
        number = before + tl.cumsum(equal.to(tl.int32), 0) - 1
        here = tl.max(tl.where(equal & (number <= place), column, -1), 0)
        token = tl.where(here >= 0, here, token)
        before += tl.sum(equal.to(tl.int32), 0)
    tl.store(out + index, tl.cast(token, tl.int64))


def draw_rows(logits: torch.Tensor, rows: torch.Tensor, filters: Filters, chance: torch.Tensor) -> torch.Tensor:
    """As sampling.draw_rows does, but for equal logits, which come by number: int64 [D], with nothing waited for.

    `chance` is float64; logits are contiguous.
    """
    width = logits.shape[1]
    out = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    _draw[(len(rows),)](
        logits,
        rows,
        filters.temperature,
        filters.top_k,
        filters.top_p,
        filters.min_p,
        chance,
        out,
        width,
        BLOCK=min(8192, triton.next_power_of_2(width)),
        num_warps=16,
    )
    return out
