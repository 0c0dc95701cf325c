"""The report of one drill: a page of its own, with nothing from elsewhere."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Final

import msgspec

from ops.drills.charts import Band, Series, chart
from ops.drills.requests import RequestResult
from ops.drills.runner import Outcome

_COLOURS: Final = {
    RequestResult.ANSWERED: "#2f7d4f",
    RequestResult.WRONG: "#8b3fa0",
    RequestResult.SEVERED: "#c9772b",
    RequestResult.LOST: "#c0392b",
}
_BIN_S: Final = 0.25
_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}
h1{font-size:1.5rem;margin-bottom:0}h2{font-size:1.1rem;margin-top:2rem}.about{color:#566}
.passed{color:#2f7d4f}.failed{color:#c0392b}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #e3e7ec}figure{margin:1.2rem 0}
figcaption{font-size:.9rem;margin-bottom:.2rem}figcaption span{margin-left:.8rem}svg{width:100%;height:auto}
.grid{stroke:#e3e7ec}.tick,.note{font-size:11px;fill:#667}.band{fill:#f6dcd2;fill-opacity:.7}pre{white-space:pre-wrap}
@media (prefers-color-scheme:dark){body{background:#14181d;color:#dde3ea}td,th{border-color:#2b333d}
.grid{stroke:#2b333d}.band{fill:#4a2a20}.tick,.note{fill:#9aa7b5}.about{color:#9aa7b5}}
"""


def write_report(outcome: Outcome, file: Path) -> None:
    """Write the page; folders above it are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page(outcome), encoding="utf-8")


def page(outcome: Outcome) -> str:
    """The whole page. Pure."""
    word = "passed" if outcome.passed else "failed"
    title = f"Drill {outcome.drill.name}: {word}"
    sabotaged = f"<p><b>Sabotaged:</b> {_text(outcome.drill.sabotage.about)}</p>" if outcome.sabotaged else ""
    figures = msgspec.json.format(msgspec.json.encode(outcome.figures), indent=2).decode()
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title><style>{_STYLE}</style></head><body>
<h1>Drill {_text(outcome.drill.name)}: <span class="{word}">{word}</span></h1>
<p class="about">{_text(outcome.drill.about)}</p>{sabotaged}
{_checks(outcome)}
{_charts(outcome)}
<h2>What happened</h2>{_events(outcome)}
<h2>Figures</h2><pre>{_text(figures)}</pre>
</body></html>
"""


def _checks(outcome: Outcome) -> str:
    rows = "".join(
        f'<tr><td class="{"passed" if check.passed else "failed"}">{"&#10004;" if check.passed else "&#10008;"}</td>'
        f"<td>{_text(check.what)}</td><td>{_text(check.limit)}</td><td>{_text(check.seen)}</td></tr>"
        for check in outcome.checks
    )
    return f"<table><tr><th></th><th>what</th><th>limit</th><th>seen</th></tr>{rows}</table>"


def _charts(outcome: Outcome) -> str:
    phases = outcome.phases
    band = Band(phases.broken_at, phases.healed_at, "broken")
    span = phases.ended_at
    records = outcome.records
    times = [
        Series(result.value, colour, [(one.started, one.seconds) for one, was in records if was is result])
        for result, colour in _COLOURS.items()
    ]
    first = Series("first token", "#2a6fb0", [(o.started, o.first_at - o.started) for o, _ in records if o.text])
    gaps = Series("longest gap", "#c9772b", [(one.started, one.max_gap_s) for one, _ in records if one.text])
    ends = [(one.ended, result is RequestResult.ANSWERED) for one, result in records]
    rates = [
        Series("answered", _COLOURS[RequestResult.ANSWERED], _rate([at for at, well in ends if well], span), line=True),
        Series("failed", _COLOURS[RequestResult.LOST], _rate([at for at, well in ends if not well], span), line=True),
    ]
    return (
        chart("Time to the whole answer, by when it was asked", " s", times, band, span)
        + chart("Time to the first token, and the longest wait within an answer", " s", [first, gaps], band, span)
        + chart("Answers ended a second", "", rates, band, span)
    )


def _rate(moments: list[float], span_s: float) -> list[tuple[float, float]]:
    bins = [0] * (int(span_s / _BIN_S) + 1)
    for moment in moments:
        bins[min(len(bins) - 1, max(0, int(moment / _BIN_S)))] += 1
    return [(min(span_s, (i + 0.5) * _BIN_S), count / _BIN_S) for i, count in enumerate(bins)]


def _events(outcome: Outcome) -> str:
    rows = "".join(f"<tr><td>{at:.2f} s</td><td>{_text(what)}</td></tr>" for at, what in outcome.events)
    return f"<table>{rows}</table>"


def _text(text: str) -> str:
    return html.escape(text)
