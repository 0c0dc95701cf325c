"""The timers of an attempt, on times that are handed in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core import progress
from router.core.catalog import Timers
from router.core.progress import Progress

TIMERS = Timers(connect_s=1, headers_s=3, first_token_s=5, gap_s=2, floor_tokens_per_s=2, floor_window_s=4)


def test_each_silence_before_the_first_token_has_its_own_limit() -> None:
    attempt = Progress(TIMERS, 100.0)
    assert attempt.due() == (101.0, progress.CONNECT)
    attempt.reached(connected=True, headers=False)
    assert attempt.due() == (103.0, progress.HEADERS)
    attempt.reached(connected=True, headers=True)
    assert attempt.due() == (105.0, progress.FIRST_TOKEN)
    attempt.note(104.0, 1)
    assert attempt.due() == (106.0, progress.GAP)


@given(st.floats(0.0, 20.0), st.sampled_from([0.0, 2.0]))
def test_whenever_the_first_token_comes_its_gap_is_looked_at_in_time(first, floor) -> None:
    timers = Timers(connect_s=9, headers_s=30, first_token_s=30, gap_s=2, floor_tokens_per_s=floor, floor_window_s=1.5)
    attempt, now = Progress(timers, 0.0), 0.0
    attempt.reached(connected=True, headers=False)
    while attempt.look_at(now) <= first:
        now = attempt.look_at(now)
        assert attempt.due()[0] > now
    look = attempt.look_at(now)
    attempt.note(first, 1)
    assert look <= attempt.due()[0]


def test_the_shortest_limit_wins_and_headers_imply_a_connection() -> None:
    attempt = Progress(Timers(connect_s=9, headers_s=3, first_token_s=2), 0.0)
    assert attempt.due() == (2.0, progress.FIRST_TOKEN)
    attempt = Progress(TIMERS, 0.0)
    attempt.reached(connected=False, headers=True)
    assert attempt.due() == (5.0, progress.FIRST_TOKEN)


def test_a_drip_is_late_when_a_whole_window_held_too_little() -> None:
    attempt = Progress(TIMERS, 0.0)
    for i in range(11):
        attempt.note(1.0 + i * 0.1, 1)  # eleven tokens until 2.0
    assert attempt.due() == (4.0, progress.GAP)
    # With one token more at a time, a window holds 8 until the fifth, then the sixth of them has left it.
    for at, left in ((3.5, 1.4), (5.0, 1.5)):
        attempt.note(at, 1)
        due, reason = attempt.due()
        assert reason == progress.FLOOR
        assert due == pytest.approx(left + TIMERS.floor_window_s)


@given(st.lists(st.tuples(st.floats(0.01, 1.9), st.integers(1, 20)), min_size=1, max_size=60))
def test_the_floor_is_due_exactly_when_a_window_falls_below_it(arrivals) -> None:
    attempt, now, seen = Progress(TIMERS, 0.0), 0.0, []
    for pause, tokens in arrivals:
        now += pause
        attempt.note(now, tokens)
        seen.append((now, tokens))
    at, reason = attempt.due()
    first = seen[0][0]
    assert at <= now + TIMERS.gap_s
    if reason == progress.FLOOR:
        assert at >= first + TIMERS.floor_window_s
        held = sum(tokens for t, tokens in seen if t > at - TIMERS.floor_window_s + 1e-9)
        assert held < 8


@given(st.lists(st.floats(0.01, 0.4), min_size=20, max_size=80))
def test_a_steady_stream_is_never_late(pauses) -> None:
    attempt, now = Progress(TIMERS, 0.0), 0.0
    for pause in pauses:
        now += pause
        attempt.note(now, 1)
        assert attempt.due()[0] > now


def test_a_node_that_says_that_it_waits_is_not_silent() -> None:
    """Each word winds the first token's timer up again; after the first token such words mean nothing."""
    attempt = Progress(TIMERS, 100.0)
    attempt.waits(100.5)
    # Who speaks is connected and has sent headers.
    assert attempt.due() == (105.5, progress.FIRST_TOKEN)
    attempt.waits(105.0)
    assert attempt.due() == (110.0, progress.FIRST_TOKEN)
    assert attempt.last_at == 105.0
    attempt.note(109.0, 1)
    attempt.waits(110.9)
    assert attempt.due() == (111.0, progress.GAP)
