from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.confidence import ConfidenceTable
from inference.core.counter_rng import philox, uniform
from inference.core.meter import RateMeter
from inference.core.speculation import DraftWidths, Mode, PayOff, Trust, prompt_lookup


def lookup_by_hand(text: list[int], count: int) -> list[int]:
    for length in (4, 3, 2):
        if len(text) <= length:
            continue
        for start in range(len(text) - length - 1, -1, -1):
            if text[start : start + length] == text[-length:]:
                return text[start + length : start + length + count]
    return []


@given(st.lists(st.sampled_from([0, 1, 256, 257, 65536]), max_size=40), st.integers(1, 6))
def test_lookup_finds_what_a_plain_search_finds(text, count):
    assert prompt_lookup(np.array(text, np.int32), count).tolist() == lookup_by_hand(text, count)


def test_widths_follow_success():
    widths = DraftWidths(1, maximum=8)
    widths.learn(0, 4, 4)
    assert widths.width[0] == 8
    widths.learn(0, 8, 1)
    assert widths.width[0] == 2
    widths.learn(0, 2, 0)
    assert widths.width[0] == 1


def drive(policy: PayOff, drafted_rate: float, plain_rate: float, steps: int) -> int:
    drafted = 0
    for _ in range(steps):
        mode = Mode.DRAFTED if policy.drafts(1) else Mode.PLAIN
        drafted += mode is Mode.DRAFTED
        policy.learn(1, mode, 1, 1 / (drafted_rate if mode is Mode.DRAFTED else plain_rate))
    return drafted


def test_drafting_stops_when_it_does_not_pay_and_is_seldom_probed():
    assert drive(PayOff(), drafted_rate=80, plain_rate=100, steps=2000) < 60


def test_drafting_goes_on_while_it_pays():
    assert drive(PayOff(), drafted_rate=200, plain_rate=100, steps=2000) > 1900


def test_drafting_comes_back_when_it_pays_again():
    policy = PayOff()
    drive(policy, 80, 100, 200)
    assert drive(policy, 300, 100, 2000) > 1500


def test_drafting_comes_back_as_soon_after_a_long_time_without():
    """After thousands of steps the loser is tried seldom; once it won, the next change is noticed sooner."""
    policy = PayOff()
    drive(policy, 80, 100, 20_000)
    drive(policy, 300, 100, 5_000)
    drive(policy, 80, 100, 300)
    assert drive(policy, 80, 100, 100) < 10
    assert drive(policy, 300, 100, 1_000) > 500


def follow(trust: Trust, text: list[int], guesses: list[int]) -> list[bool]:
    """Whether each token's guess was run."""
    runs = []
    for at, guess in enumerate(guesses):
        runs.append(trust.enough(0, np.array(text[:at], np.int32)))
        if guess >= 0:
            trust.guessed(0, guess, at)
    return runs


def test_a_text_is_trusted_while_its_guesses_hold():
    trust = Trust(1)
    trust.reset(0)
    assert all(follow(trust, [1] * 40, [1] * 40))
    runs = follow(trust, [1] * 60, [2] * 20 + [1] * 40)
    assert not any(runs[8:20])
    assert all(runs[26:]), "guesses that were not run are looked at too"
    assert follow(trust, [1] * 20, [-1] * 20) == [True] * 20, "no guess, no blame"
    trust.reset(0)
    assert follow(trust, [1] * 3, [2] * 3) == [True, True, False]


def test_philox_known_answers():
    """The reference's own vectors for ten rounds."""
    word = lambda value: np.array([value], np.uint64)  # noqa: E731
    zero = philox((word(0),) * 4, (word(0),) * 2)
    assert [int(w[0]) for w in zero] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = philox((word(0xFFFFFFFF),) * 4, (word(0xFFFFFFFF),) * 2)
    assert [int(w[0]) for w in ones] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_uniform_depends_on_its_own_key_alone():
    seeds = np.array([1, 2, 2**64 - 1], np.uint64)
    streams, positions = np.array([0, 1, 2]), np.array([5, 6, 7])
    together = uniform(seeds, streams, positions)
    alone = [uniform(seeds[i : i + 1], streams[i : i + 1], positions[i : i + 1])[0] for i in range(3)]
    assert together.tolist() == alone
    assert len(set(alone)) == 3
    many = uniform(np.full(20000, 3, np.uint64), np.zeros(20000, np.int64), np.arange(20000))
    assert many.min() >= 0
    assert many.max() < 1
    assert many.mean() == pytest.approx(0.5, abs=0.01)


def test_confidence_sums_up():
    table = ConfidenceTable(2)
    assert table.of(0) is None
    rows = np.array([0, 0, 1])
    table.add(
        rows, np.array([-1, -3, -2], np.float32), np.array([1, 2, 5], np.float32), np.array([4, 2, 1], np.float32)
    )
    got = table.of(0)
    assert (got.mean_logprob, got.min_logprob, got.mean_entropy, got.mean_margin, got.tokens) == (-2, -3, 1.5, 3, 2)
    table.reset(0)
    assert table.of(0) is None


def test_rate_is_over_the_last_seconds():
    meter = RateMeter(window_s=2.0)
    for tick in range(10):
        meter.add(10, tick * 0.1)
    assert meter.rate(1.0) == pytest.approx(100)
    assert meter.rate(10.0) == 0
