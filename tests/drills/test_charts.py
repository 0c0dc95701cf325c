"""The charts: nothing reaches beyond the picture."""

from __future__ import annotations

import re

import pytest

from ops.drills.charts import Band, Series, chart

# A generous width for a letter of 11 px.
_LETTER = 7.0


@pytest.mark.parametrize("span_s", [0.5, 9.99, 25.0, 123.4, 3600.0])
@pytest.mark.parametrize("broken", [(0.0, 0.1), (0.4, 0.6), (0.97, 1.0), (1.0, 1.0)])
def test_no_label_is_cut_at_the_edge(span_s: float, broken: tuple[float, float]) -> None:
    band = Band(broken[0] * span_s, broken[1] * span_s, "broken")
    made = chart("T", " s", [Series("s", "#000", [(0.0, 0.1), (span_s, 4.2)])], band, span_s)
    box = re.search(r'viewBox="0 0 (\d+) (\d+)"', made)
    assert box is not None
    width, height = map(float, box.groups())
    labels = re.findall(r'<text x="([\d.-]+)"([^>]*?)>([^<]*)</text>', made.replace("&#9679;", ""))
    assert len(labels) == 13
    for x, rest, text in labels:
        long = _LETTER * len(text)
        left = {"end": long, "middle": long / 2}.get(_anchor(rest), 0.0)
        assert float(x) - left >= 0, text
        assert float(x) - left + long <= width, text
        y = re.search(r'y="([\d.]+)"', rest)
        assert y is not None
        assert 0 < float(y[1]) < height


def _anchor(attributes: str) -> str:
    found = re.search(r'text-anchor="(\w+)"', attributes)
    return found[1] if found else "start"
