"""What a drill makes of what its callers saw."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.drills.charts import Band, Series, chart
from ops.drills.measure import Figures, Phases, figures, quantile
from ops.drills.requests import RequestRecord, RequestResult
from ops.drills.spec import Expect
from ops.drills.verdict import as_json, judge

_WHOLE = "one two three"
_PHASES = Phases(2.0, 4.0, 6.0)


def _asked(text: str = _WHOLE, *, finished: bool = True, started: float = 0.0, **fields: object) -> RequestRecord:
    record = RequestRecord(0, started)
    record.text, record.finished, record.ended = text, finished, started + 1.0
    for name, value in fields.items():
        setattr(record, name, value)
    return record


@pytest.mark.parametrize(
    ("text", "finished", "result"),
    [
        (_WHOLE, True, RequestResult.ANSWERED),
        ("one two", False, RequestResult.SEVERED),
        ("", False, RequestResult.LOST),
        # Missing, doubled and changed words, whether the end came or not.
        ("one two", True, RequestResult.WRONG),
        ("", True, RequestResult.WRONG),
        ("one two two three", True, RequestResult.WRONG),
        ("one two two", False, RequestResult.WRONG),
        (_WHOLE + " four", True, RequestResult.WRONG),
    ],
)
def test_each_answer_has_one_fate(text: str, finished: bool, result: RequestResult) -> None:
    """Held against the undisturbed answer."""
    assert _asked(text, finished=finished).result(_WHOLE) is result


@given(st.lists(st.sampled_from([_WHOLE, "one", "", "two"]), max_size=20), st.booleans())
def test_every_question_is_counted_once(texts: list[str], finished: bool) -> None:
    """The four fates add up to what was asked."""
    seen = figures([_asked(t, finished=finished) for t in texts], lambda one: one.result(_WHOLE), _PHASES)
    assert seen.requests == seen.answered + seen.lost + seen.severed + seen.wrong == len(texts)


def test_phases_and_amplification() -> None:
    """Latency goes by when it was asked; attempts count where the fault could be felt."""
    record = [
        _asked(started=0.5),
        _asked(started=1.5, attempts=2, spliced=True),
        _asked(started=3.0, attempts=3, cost_usd=0.5),
        _asked(started=5.0),
    ]
    seen = figures(record, lambda one: one.result(_WHOLE), _PHASES)
    assert (seen.amplification, seen.spliced, seen.cost_usd) == (2.5, 1, 0.5)
    assert seen.p99_s == {"before": 1.0, "during": 1.0, "after": 1.0}


def test_bystanders_are_touched_by_errors_and_by_second_attempts() -> None:
    """And their attempts do not count as the fault's."""
    record = [
        _asked(started=3.0, attempts=3),
        _asked(started=3.0, bystander=True),
        _asked(started=3.0, bystander=True, attempts=2),
        _asked("one", finished=False, started=3.0, bystander=True, error="CUT"),
    ]
    seen = figures(record, lambda one: one.result(_WHOLE), _PHASES)
    assert (seen.bystanders_touched, seen.amplification, seen.severed) == (2, 3.0, 1)


def test_a_silent_end_is_always_a_failure() -> None:
    """No limit allows one."""
    seen = figures([_asked("one", finished=False)], lambda one: one.result(_WHOLE), _PHASES)
    checks = judge(Expect(severed=5), seen)
    assert [check.what for check in checks if not check.passed] == ["silent ends", "answers"]


@pytest.mark.parametrize(
    ("expect", "seen", "failed"),
    [
        (Expect(), Figures(answered=1), []),
        (Expect(), Figures(answered=1, lost=1), ["requests lost"]),
        (Expect(eject_s=1), Figures(answered=1), ["off the path after"]),
        (Expect(eject_s=1, recover_s=1), Figures(answered=1, eject_s=0.5, recover_s=2.0), ["back on it after"]),
        (Expect(p99_during_s=1), Figures(answered=1, p99_s={"during": 1.5}), ["p99 during"]),
        (Expect(p99_during_s=1), Figures(answered=1, p99_s={"during": None}), ["p99 during"]),
        (Expect(amplification=1.2), Figures(answered=1, amplification=1.3), ["attempts a request"]),
        (Expect(cost_usd=0.1), Figures(answered=1, cost_usd=0.2), ["money spent"]),
        (Expect(min_called={"a": 1}), Figures(answered=1), ["calls of a"]),
        (Expect(max_called={"a": 1}), Figures(answered=1, called={"a": 2}), ["calls of a"]),
        (Expect(breaker_closed=("a",)), Figures(answered=1, opened=("a",)), ["breaker of a"]),
        (Expect(min_spliced=1), Figures(answered=1), ["streams resumed"]),
        (
            Expect(bystanders_touched=0),
            Figures(answered=1, bystanders_touched=1),
            ["the other tenant's questions touched"],
        ),
        (
            Expect(first_token_ratio=3),
            Figures(answered=1, first_token_p50_s={"before": 0.1, "during": 0.4}),
            ["times the first token took"],
        ),
        (Expect(answer_ratio=3), Figures(answered=1, p50_s={"before": 0.1, "during": 0.3}), []),
        (Expect(answer_ratio=3), Figures(answered=1, p50_s={"before": 0.1}), ["times an answer took"]),
        (Expect(restarts=0), Figures(answered=1, restarts=1), ["processes that ended"]),
        (Expect(), Figures(answered=1, requested=0), ["requests that are the fault"]),
        (
            Expect(),
            Figures(answered=1, requested=4, requested_otherwise=1),
            ["of them ended otherwise than is right"],
        ),
        (Expect(), Figures(answered=1, aborted=True), ["losses"]),
    ],
)
def test_limits_judge(expect: Expect, seen: Figures, failed: list[str]) -> None:
    """Each by itself; what was never seen does not pass."""
    checks = judge(expect, seen)
    assert [check.what for check in checks if not check.passed] == failed
    verdict = as_json("d", checks, seen, sabotaged=False)
    assert (verdict["drill"], verdict["passed"]) == ("d", not failed)


def test_quantiles_are_values_that_were_seen() -> None:
    """Nearest rank; nothing of nothing."""
    values = [float(i) for i in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile([7.0], 0.99)) == (50.0, 99.0, 7.0)
    assert quantile([], 0.5) is None


def test_charts_stay_inside_their_frame_and_escape_words() -> None:
    """Also for no points at all, and for labels that look like markup."""
    points = [(i / 10, float(i)) for i in range(60)]
    drawn = chart("<b>", " s", [Series("a", "red", points), Series("b", "blue", [], line=True)], Band(2, 4, "x"), 6.0)
    assert "<b>" not in drawn
    for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.-]+)"', drawn):
        assert 0 <= float(x) <= 920
        assert 0 <= float(y) <= 240
    assert "<svg" in chart("none", "", [], Band(0, 0, ""), 0.0)
