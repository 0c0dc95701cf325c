from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.adapters.torch.logits import best_of
from inference.adapters.torch.sampling import Filters, Sampler, _adjust, _restore, draw_rows
from inference.adapters.torch.sampling_table import SamplingTable
from inference.core.port import SamplingParams
from tests.unit.inference.engine.fake_runner import FakeRunner
from tests.unit.inference.engine.masks import words_of


def kept_by_hand(logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """The distribution that is left, in float64, one filter after the other."""
    scaled = logits.astype(np.float64) / temperature
    probs = np.exp(scaled - scaled.max())
    probs /= probs.sum()
    order = np.argsort(-probs, kind="stable")
    left = probs.copy()
    if top_k:
        left[order[top_k:]] = 0
    left /= left.sum()
    before = np.cumsum(left[order]) - left[order]
    left[order[before >= top_p]] = 0
    left[probs < min_p * probs.max()] = 0
    return left / left.sum()


def filters(rows: int, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0) -> Filters:
    return Filters(
        torch.full((rows,), temperature),
        torch.full((rows,), top_k, dtype=torch.int32),
        torch.full((rows,), top_p),
        torch.full((rows,), min_p),
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    vocab=st.sampled_from([5, 90, 3000]),
    spread=st.floats(0.1, 6),
    temperature=st.floats(0.2, 3),
    top_k=st.sampled_from([0, 1, 7, 100, 2000]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.05, 0.9]),
    masked=st.sampled_from([None, 0.03, 0.5, 0.98]),
)
def test_draws_have_the_filtered_distribution(seed, vocab, spread, temperature, top_k, top_p, min_p, masked):
    """At evenly spaced chances every token comes as often as its share says: an exact test, not a statistical one."""
    rng = np.random.default_rng(seed)
    row = (rng.standard_normal(vocab) * spread).astype(np.float32)
    may = rng.random(vocab) < (1 if masked is None else masked)
    may[rng.integers(vocab)] = True
    wanted = np.zeros(vocab)
    wanted[may] = kept_by_hand(row[may], temperature, top_k, top_p, min_p)
    draws = 200
    chance = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    logits = torch.from_numpy(row).expand(draws, vocab).contiguous()
    cut = filters(draws, temperature, top_k, top_p, min_p)
    allowed = None if masked is None else words_of(np.broadcast_to(may, (draws, vocab)))
    tokens = draw_rows(FakeRunner(), logits, torch.arange(draws), cut, chance, allowed=allowed)
    assert may[tokens].all()
    got = np.bincount(tokens.numpy(), minlength=vocab) / draws
    # A token on the edge of a filter may fall to either side by rounding, and a share is met to one draw.
    assert np.abs(got - wanted).max() <= 0.02


def sampler(request_rows: int = 8) -> tuple[Sampler, SamplingTable]:
    table = SamplingTable(request_rows)
    return Sampler(FakeRunner(), table), table


def enter(table: SamplingTable, request_row: int, *, prompt=(), emitted=(), seed=1, stream=0, **params) -> None:
    table.enter(
        request_row,
        SamplingParams(max_tokens=9, **({"temperature": 0.0} | params)),
        seed=seed,
        stream=stream,
        prompt=tuple(prompt),
        emitted=tuple(emitted),
    )


def draw(it: Sampler, logits: torch.Tensor, request_rows, positions=None):
    where = np.zeros(len(request_rows), np.int64) if positions is None else np.array(positions)
    return it.draw(logits, np.array(request_rows), where)


def test_penalties_and_bias_by_hand():
    _, table = sampler()
    enter(
        table, 0, prompt=[1, 2], emitted=[2, 3, 3], repetition_penalty=2.0, frequency_penalty=0.5, presence_penalty=0.25
    )
    enter(table, 1, logit_bias={4: 3.0, 5: -100.0})
    enter(table, 2, prompt=[5], emitted=[5], repetition_penalty=2.0, presence_penalty=1.0, logit_bias={5: 1.5, 6: 0.5})
    changes = table.adjustments(np.array([0, 1, 2]))
    logits = torch.tensor([[1.0, 2.0, -2.0, 4.0, 0, 0, 0, 0]] * 3)
    want = logits.clone()
    want[0, 1], want[0, 2], want[0, 3] = 1.0, -4.0 - 0.75, 2.0 - 1.25
    want[1, 4], want[1, 5] = 3.0, -100.0
    want[2, 5], want[2, 6] = 0.5, 0.5
    before = logits.clone()
    raw = _adjust(logits, changes)
    torch.testing.assert_close(logits, want)
    _restore(logits, changes, raw)
    torch.testing.assert_close(logits, before)


def test_penalty_counts_follow_what_is_drawn():
    _, table = sampler()
    enter(table, 0, prompt=range(3), frequency_penalty=1.0)
    for token in [*range(100), 7, 7]:
        table.count(0, token)
    changes = table.adjustments(np.array([0]))
    shift = dict(zip(changes.token.tolist(), changes.shift.tolist(), strict=True))
    assert len(shift) == 100
    assert (shift[7], shift[99], shift[0]) == (-3.0, -1.0, -1.0)


def test_logprob_is_the_models_own_whatever_was_changed():
    it, table = sampler()
    logits = torch.randn(3, 128, generator=torch.Generator().manual_seed(1))
    want = logits.log_softmax(-1).numpy()
    enter(table, 0, logit_bias={9: 50.0}, logprobs=2)
    enter(table, 1, temperature=1.0, seed=3)
    enter(table, 2)
    drawn = draw(it, logits, [0, 1, 2])
    assert drawn.tokens[0] == 9
    np.testing.assert_allclose(drawn.logprob, want[range(3), drawn.tokens], rtol=1e-5)
    assert [token for token, _ in drawn.top[0]] == np.argsort(-want[0])[:2].tolist()
    assert set(drawn.top) == {0}
    np.testing.assert_allclose(drawn.entropy, -(np.exp(want) * want).sum(-1), rtol=1e-4)


def test_same_seed_same_token_whatever_is_beside():
    it, table = sampler(64)
    row = torch.randn(128, generator=torch.Generator().manual_seed(2))
    for request_row in range(64):
        enter(
            table,
            request_row,
            temperature=1.0,
            seed=99 if request_row == 5 else request_row,
            top_p=0.9 if request_row % 2 else 1.0,
        )
    others = torch.randn(64, 128)
    others[5] = row
    alone = [draw(it, row[None].clone(), [5], [p]).tokens[0] for p in range(30)]
    beside = [draw(it, others.clone(), list(range(64)), [p] * 64).tokens[5] for p in range(30)]
    assert alone == beside
    assert len(set(alone)) > 5


@pytest.mark.parametrize("stream", [0, 1])
def test_choices_of_a_request_draw_apart(stream):
    it, table = sampler()
    enter(table, 0, temperature=1.0, seed=7, stream=stream)
    enter(table, 1, temperature=1.0, seed=7, stream=stream + 1)
    flat = torch.zeros(2, 128)
    drawn = [draw(it, flat.clone(), [0, 1], [p, p]).tokens for p in range(8)]
    assert any(a != b for a, b in drawn)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rows=st.integers(1, 4), vocab=st.sampled_from([1, 5, 32, 33, 90, 640]))
def test_best_allowed_is_found_as_by_hand(data, rows, vocab):
    """Few different values, so that equals are common; the first wins, be it minus infinity."""
    seed = data.draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    logits = rng.choice(np.array([-np.inf, -2.5, 0.0, 3.0], np.float32), (rows, vocab))
    may = rng.random((rows, vocab)) < data.draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    may[np.arange(rows), rng.integers(vocab, size=rows)] = True
    by_hand = [max(np.flatnonzero(may[r]), key=lambda t, r=r: (logits[r, t], -t)) for r in range(rows)]
    assert best_of(torch.from_numpy(logits), words_of(may)).tolist() == by_hand


def test_constrained_greedy_rows_keep_the_models_own_confidence():
    """The drawn token is the best allowed one, penalties or not; what is reported is the model's own distribution."""
    it, table = sampler()
    logits = torch.randn(3, 128, generator=torch.Generator().manual_seed(1))
    want = logits.log_softmax(-1).numpy()
    free = it.draw(logits.clone(), np.zeros(3, np.intp), np.zeros(3, np.int64))
    may = np.ones((3, 128), np.bool_)
    order = np.argsort(-want, axis=1)
    for row in (0, 1):
        may[row, order[row, :40]] = False
    enter(table, 1, logit_bias={int(order[1, 60]): 50.0, int(order[1, 3]): 90.0})
    drawn = it.draw(logits, np.array([0, 1, 2]), np.zeros(3, np.int64), words_of(may))
    assert drawn.tokens.tolist() == [order[0, 40], order[1, 60], order[2, 0]]
    np.testing.assert_allclose(drawn.logprob, want[range(3), drawn.tokens], rtol=1e-5)
    assert (drawn.entropy == free.entropy).all()
    assert (drawn.margin == free.margin).all()
