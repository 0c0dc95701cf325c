"""Charts as inline SVG: no script, nothing from elsewhere. Pure."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_WIDTH, _HEIGHT = 920, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 28
_TICKS: Final = 5
# Room for a band's label.
_LABEL: Final = 60


@dataclass(frozen=True)
class Band:
    """A stretch of time that is shaded."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Series:
    """Points of one kind, in one colour; joined by a line where `line`."""

    label: str
    colour: str
    points: Sequence[tuple[float, float]]
    line: bool = False


def chart(title: str, unit: str, series: Sequence[Series], band: Band, span_s: float) -> str:
    """Time to the right, in seconds from 0 to `span_s`; values upwards from 0."""
    top = _round_up(max((y for one in series for _, y in one.points), default=1.0))
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">',
        _band(band, span_s),
        *_grid(span_s, top, unit),
        *(_draw(one, span_s, top) for one in series),
        "</svg>",
    ]
    legend = "".join(f'<span style="color:{one.colour}">&#9679; {html.escape(one.label)}</span> ' for one in series)
    return f"<figure><figcaption>{html.escape(title)} {legend}</figcaption>{''.join(parts)}</figure>"


def _x(at: float, span_s: float) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * at / max(span_s, 0.001), 1)


def _y(value: float, top: float) -> float:
    return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / top, 1)


def _band(band: Band, span_s: float) -> str:
    x, end = _x(band.start, span_s), _x(band.end, span_s)
    height = _HEIGHT - _TOP - _BOTTOM
    return (
        f'<rect x="{x}" y="{_TOP}" width="{max(1.0, round(end - x, 1))}" height="{height}" class="band"/>'
        f'<text {_beside(x)} y="{_TOP + 12}" class="note">{html.escape(band.label)}</text>'
    )


def _beside(x: float) -> str:
    """Right of a line, or left of one that has no room at its right."""
    if x > _WIDTH - _RIGHT - _LABEL:
        return f'x="{x - 4}" text-anchor="end"'
    return f'x="{x + 4}"'


def _grid(span_s: float, top: float, unit: str) -> list[str]:
    parts: list[str] = []
    for i in range(_TICKS + 1):
        value, at = top * i / _TICKS, span_s * i / _TICKS
        y, x = _y(value, top), _x(at, span_s)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end" class="tick">{value:g}{unit}</text>')
        # The last one ends where the chart does: centred on its line it would be cut at the picture's edge.
        anchor = "end" if i == _TICKS else "middle"
        parts.append(f'<text x="{x}" y="{_HEIGHT - 8}" text-anchor="{anchor}" class="tick">{at:.1f} s</text>')
    return parts


def _draw(series: Series, span_s: float, top: float) -> str:
    places = [(_x(at, span_s), _y(value, top)) for at, value in series.points]
    if series.line:
        path = " ".join(f"{x},{y}" for x, y in places)
        return f'<polyline points="{path}" fill="none" stroke="{series.colour}" stroke-width="1.5"/>'
    return "".join(f'<circle cx="{x}" cy="{y}" r="2.4" fill="{series.colour}" fill-opacity="0.65"/>' for x, y in places)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, ... so that ticks read well."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= value)
