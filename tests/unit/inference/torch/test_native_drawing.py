"""The native kernels find what is drawn as their torch twin does, whatever a mask rules out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.adapters.torch import logits as twin
from inference.adapters.torch.runner import RunnerOptions, build_runner
from inference.adapters.torch.runner_api import ModelRunner
from inference.adapters.torch.sampling import Sampler
from inference.adapters.torch.sampling_table import SamplingTable
from inference.core.port import SamplingParams
from tests.unit.inference.engine.masks import words_of

pytestmark = pytest.mark.usefixtures("kernels")
# One word and less, no whole word, no whole vector, more than one part.
VOCABULARIES = (1, 31, 33, 160, 1000, 8192, 8200, 49157)


@pytest.fixture(scope="module")
def runner(llama: tuple[Path, Any]) -> ModelRunner:
    return build_runner(RunnerOptions(llama[0], precision="int4", num_blocks=8))


def some_logits(rng: np.random.Generator, rows: int, vocab: int, values: str) -> torch.Tensor:
    """`few`: equals are everywhere, and so is minus infinity."""
    if values == "few":
        return torch.from_numpy(rng.choice(np.array([-np.inf, -1.0, -0.0, 0.0, 2.5], np.float32), (rows, vocab)))
    return torch.from_numpy((rng.standard_normal((rows, vocab)) * 4).astype(np.float32))


def some_mask(rng: np.random.Generator, rows: int, vocab: int, share: float) -> np.ndarray:
    """Bool; share 0 leaves one token a row."""
    may = rng.random((rows, vocab)) < share
    may[np.arange(rows), rng.integers(vocab, size=rows)] = True
    return may


drawn_from = {
    "seed": st.integers(0, 100_000),
    "rows": st.integers(1, 5),
    "vocab": st.sampled_from(VOCABULARIES),
    "values": st.sampled_from(["few", "many"]),
    "share": st.sampled_from([0.0, 0.001, 0.5, 0.99, 1.0]),
}


def test_summary_is_its_torch_twin(runner: ModelRunner) -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 49157) * 4  # more than one part, and no whole vector at the end
    logits[1, [5, 49156]] = logits[1].max() + 1  # equals: the first wins
    logits[2, 100:] = -torch.inf
    logits[3, 49156] = 40.0
    for allowed in (None, words_of(some_mask(np.random.default_rng(1), 4, 49157, 0.3))):
        actual, expected = runner.summarize(logits, allowed), twin.summarize(logits, allowed)
        assert torch.equal(actual.best, expected.best)
        for name in ("best_logprob", "margin", "entropy", "logsumexp"):
            torch.testing.assert_close(getattr(actual, name), getattr(expected, name), rtol=1e-4, atol=1e-4)


@settings(max_examples=150, deadline=None)
@given(**drawn_from)
def test_best_allowed_token_is_the_twins(
    runner: ModelRunner, seed: int, rows: int, vocab: int, values: str, share: float
) -> None:
    rng = np.random.default_rng(seed)
    logits, may = some_logits(rng, rows, vocab, values), some_mask(rng, rows, vocab, share)
    summary = runner.summarize(logits, words_of(may))
    assert torch.equal(summary.best, twin.best_of(logits, words_of(may)))
    assert may[np.arange(rows), summary.best].all()
    free = runner.summarize(logits)
    for name in ("margin", "entropy", "logsumexp"):
        torch.testing.assert_close(getattr(summary, name), getattr(free, name), rtol=0, atol=0, equal_nan=True)


def test_where_nothing_is_allowed_the_first_token_is_named(runner: ModelRunner) -> None:
    logits, none = torch.randn(2, 90), torch.zeros(2, 3, dtype=torch.int32)
    assert runner.summarize(logits, none).best.tolist() == twin.best_of(logits, none).tolist() == [0, 0]


@settings(max_examples=100, deadline=None)
@given(count=st.sampled_from([1, 7, 64, 1024, 50_000]), masked=st.booleans(), **drawn_from)
def test_candidates_are_the_largest_in_order(
    runner: ModelRunner, seed: int, rows: int, vocab: int, values: str, share: float, count: int, masked: bool
) -> None:
    """Held to a sort of everything: by value, then by token. Rows may be left out and come in any order."""
    rng = np.random.default_rng(seed)
    logits, may = some_logits(rng, rows, vocab, values), some_mask(rng, rows, vocab, share if masked else 1.0)
    chosen = rng.permutation(rows)[: rng.integers(1, rows + 1)]
    temperature = rng.uniform(0.2, 3, len(chosen)).astype(np.float32)
    count = min(count, vocab)
    allowed = words_of(may) if masked else None
    arguments = torch.from_numpy(chosen), torch.from_numpy(temperature), count, allowed
    actual, expected = runner.candidates(logits, *arguments), twin.candidates(logits, *arguments)
    assert torch.equal(actual.values, expected.values)
    tempered = np.where(may[chosen], logits.numpy()[chosen] / temperature[:, None], -np.inf)
    for row, at in zip(range(len(chosen)), chosen, strict=True):
        order = np.lexsort((np.arange(vocab), -tempered[row]))[:count]
        there = tempered[row, order] > -np.inf
        assert (actual.tokens[row].numpy()[there] == order[there]).all(), at
    torch.testing.assert_close(actual.logsumexp, expected.logsumexp, rtol=1e-5, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), vocab=st.sampled_from([33, 8200, 49157]), rows=st.integers(2, 6))
def test_a_row_is_the_same_whatever_is_beside_it(runner: ModelRunner, seed: int, vocab: int, rows: int) -> None:
    """Bit for bit, or a seed would not give the same text in any company."""
    rng = np.random.default_rng(seed)
    logits, may = some_logits(rng, rows, vocab, "many"), some_mask(rng, rows, vocab, 0.3)
    temperature = torch.from_numpy(rng.uniform(0.2, 3, rows).astype(np.float32))
    count = min(64, vocab)
    together = runner.candidates(logits, torch.arange(rows), temperature, count, words_of(may))
    for row in range(rows):
        one = slice(row, row + 1)
        alone = runner.candidates(logits[one], torch.zeros(1).long(), temperature[one], count, words_of(may[one]))
        for name in ("values", "tokens", "logsumexp"):
            assert torch.equal(getattr(alone, name), getattr(together, name)[one])


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_constrained_draws_pass_a_chi_square_test(runner: ModelRunner, share: float) -> None:
    """Through the whole sampler: 6,400 numbered draws from 50 tokens, some of which are ruled out."""
    vocab, rows, rounds = 50, 64, 100
    rng = np.random.default_rng(3)
    row, may = rng.standard_normal(vocab).astype(np.float32), rng.random(vocab) < share
    table = SamplingTable(rows)
    for request_row in range(rows):
        params = SamplingParams(max_tokens=9, temperature=0.8)
        table.enter(request_row, params, seed=request_row, stream=0, prompt=(1,), emitted=())
    sampler, request_rows = Sampler(runner, table), np.arange(rows)
    allowed = words_of(np.broadcast_to(may, (rows, vocab)))
    seen = np.zeros(vocab)
    for position in range(rounds):
        logits = torch.from_numpy(row).expand(rows, vocab).contiguous()
        drawn = sampler.draw(logits, request_rows, np.full(rows, position), allowed)
        np.add.at(seen, drawn.tokens, 1)
    weights = np.where(may, np.exp(row.astype(np.float64) / 0.8), 0)
    expected = weights / weights.sum() * rows * rounds
    assert not seen[~may].any()
    statistic = ((seen - expected)[may] ** 2 / expected[may]).sum()
    freedom = may.sum() - 1
    # Five standard deviations above the mean of the distribution: about one in a million.
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)
