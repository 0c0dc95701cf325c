"""Every kernel against the few lines of torch that say what it computes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")

from inference.adapters.torch import logits as reference_summary
from inference.adapters.torch.cuda.kernels.activation import silu_times
from inference.adapters.torch.cuda.kernels.draws import draw_rows
from inference.adapters.torch.cuda.kernels.embedding import embed
from inference.adapters.torch.cuda.kernels.norms import add_norm, quantize_rows
from inference.adapters.torch.cuda.kernels.skinny import Shape, skinny_product
from inference.adapters.torch.cuda.kernels.summary import summarize
from inference.adapters.torch.cuda.rows import Rows
from inference.adapters.torch.network import rms_norm
from inference.adapters.torch.sampling import Filters, draw_among


def _assert_float8(actual: Rows, expected: torch.Tensor) -> None:
    """The scales, and the codes as torch rounds them; a code may be the next one where the divisions differ a bit."""
    scales = expected.abs().amax(dim=1).clamp(min=1e-10) / 448
    torch.testing.assert_close(actual.scales, scales, rtol=1e-5, atol=0)
    codes = (expected / actual.scales[:, None]).clamp(-448, 448).to(torch.float8_e4m3fn).float()
    torch.testing.assert_close(actual.values.float(), codes, rtol=0.13, atol=2**-9)
    assert (actual.values.float() == codes).float().mean() > 0.98


def _dense(rows: Rows) -> torch.Tensor:
    values = rows.values.float()
    return values if rows.scales is None else values * rows.scales[:, None]


@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("width", [96, 128])
def test_norm_adds_to_the_residual_first(device: torch.device, width: int, quantize: bool) -> None:
    """What comes out is the norm of the sum, and the sum stays in the residual."""
    x, residual = torch.randn(5, width, device=device), torch.randn(5, width, device=device)
    weight = torch.randn(width, device=device)
    expected_sum = x + residual
    normed = add_norm(x, residual, weight, 1e-5, quantize)
    torch.testing.assert_close(residual, expected_sum)
    expected = rms_norm(expected_sum, weight, 1e-5)
    if quantize:
        _assert_float8(normed, expected)
    else:
        torch.testing.assert_close(normed.values, expected)


def test_norm_without_a_new_part_leaves_the_residual(device: torch.device) -> None:
    """The first layer has nothing to add."""
    residual = torch.randn(3, 64, device=device)
    before = residual.clone()
    normed = add_norm(None, residual, torch.ones(64, device=device), 1e-6)
    assert torch.equal(residual, before)
    torch.testing.assert_close(normed.values, rms_norm(before, torch.ones(64, device=device), 1e-6))


def test_quantized_rows_use_their_whole_range(device: torch.device) -> None:
    """Rows of very different sizes keep the same relative precision; a row of zeros stays zero."""
    x = torch.randn(4, 48, device=device) * torch.tensor([1e-4, 1.0, 1e4, 0.0], device=device)[:, None]
    rows = quantize_rows(x)
    assert rows.values.float().abs().amax(dim=1)[:3].tolist() == [448.0] * 3
    _assert_float8(Rows(rows.values[:3], rows.scales[:3]), x[:3])
    assert not _dense(rows)[3].any()


@pytest.mark.parametrize("quantize", [False, True])
def test_silu_times(device: torch.device, quantize: bool) -> None:
    """Gate and up lie side by side in a row."""
    both = torch.randn(3, 2 * 80, device=device)
    expected = F.silu(both[:, :80]) * both[:, 80:]
    actual = silu_times(both, quantize)
    if quantize:
        _assert_float8(actual, expected)
    else:
        torch.testing.assert_close(actual.values, expected, rtol=1e-5, atol=1e-5)


def test_embedding_takes_tokens_from_the_device_where_told(device: torch.device) -> None:
    """A row with a source ignores the token that the host believes in."""
    table = torch.randn(10, 24, device=device)
    tokens = torch.tensor([3, 0, 7], dtype=torch.int32, device=device)
    sources = torch.tensor([-1, 1, -1], dtype=torch.int32, device=device)
    drawn = torch.tensor([9, 5], device=device)
    torch.testing.assert_close(embed(table, tokens, sources, drawn, 2.0), 2.0 * table[[3, 5, 7]])


@pytest.mark.parametrize("split", [1, 4])
@pytest.mark.parametrize("rows", [1, 3, 70])
@pytest.mark.parametrize("bias", [False, True])
def test_skinny_product(device: torch.device, rows: int, split: int, bias: bool) -> None:
    """Sizes that fill no tile, in one part and in several."""
    x, weight = torch.randn(rows, 200, device=device), torch.randn(90, 200, device=device)
    added = torch.randn(90, device=device) if bias else None
    product = skinny_product(Rows(x), weight, None, added, torch.float32, Shape(32, 64, split))
    torch.testing.assert_close(product, F.linear(x, weight, added), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("split", [1, 2])
def test_skinny_product_of_float8(device: torch.device, split: int) -> None:
    """The scales of both sides come back in: the result is that of the numbers that the codes stand for."""
    x, weight = (
        quantize_rows(torch.randn(4, 128, device=device)),
        quantize_rows(torch.randn(48, 128, device=device) * 9),
    )
    product = skinny_product(x, weight.values, weight.scales, None, torch.float32, Shape(16, 64, split))
    torch.testing.assert_close(product, _dense(x) @ _dense(weight).T, rtol=2e-3, atol=2e-1)


def test_summary_of_logits(device: torch.device) -> None:
    """As the torch twin has it, over several parts, with masked tokens, with the best two in one part and in two."""
    logits = torch.randn(4, 9000, device=device) * 4
    logits[1, ::2] = float("-inf")
    logits[2, 4096:] = float("-inf")
    logits[3, 100], logits[3, 8999] = 40.0, 40.0
    actual, expected = summarize(logits), reference_summary.summarize(logits)
    assert torch.equal(actual.best, expected.best)
    for field in ("best_logprob", "margin", "entropy", "logsumexp"):
        torch.testing.assert_close(getattr(actual, field), getattr(expected, field), rtol=1e-4, atol=1e-4)


def test_draws_without_sorting_are_those_with_it(device: torch.device) -> None:
    """Every filter alone, all together, and points at both ends; more top-k than there are tokens."""
    kinds = [
        (0, 1.0, 0.0),
        (0, 1.0, 0.0),
        (0, 0.8, 0.0),
        (7, 1.0, 0.0),
        (0, 1.0, 0.05),
        (20, 0.7, 0.01),
        (999, 0.01, 0.9),
    ]
    top_k, top_p, min_p = (torch.tensor(column) for column in zip(*kinds, strict=True))
    count = len(kinds)
    logits, rows = torch.randn(count, 300) * 3, torch.randperm(count)
    logits[0, 5:] = float("-inf")
    chance = torch.rand(count, dtype=torch.float64)
    chance[1], chance[2] = 0.0, 1 - 2**-53
    filters = Filters(torch.linspace(0.3, 2.0, count), top_k.int(), top_p.float(), min_p.float())
    best = reference_summary.candidates(logits, rows, filters.temperature, 300)
    expected, _certain = draw_among(best, filters, chance, 300)
    there = Filters(*(getattr(filters, name).to(device) for name in ("temperature", "top_k", "top_p", "min_p")))
    actual = draw_rows(logits.to(device), rows.to(device), there, chance.to(device))
    assert actual.tolist() == expected.tolist()


def test_draws_among_equals(device: torch.device) -> None:
    """Each of them as often as its share, by number; top-k counts them one by one."""
    logits = torch.full((1, 100), -50.0)
    logits[0, [3, 40, 41, 99]] = 2.0
    chance = torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=torch.float64)
    for top_k, expected in ((0, [3, 40, 41, 99]), (2, [3, 3, 40, 40])):
        ones = torch.ones(4)
        filters = Filters(ones, torch.full((4,), top_k, dtype=torch.int32), ones, ones * 0)
        there = Filters(*(getattr(filters, name).to(device) for name in ("temperature", "top_k", "top_p", "min_p")))
        rows = torch.zeros(4, dtype=torch.int64, device=device)
        assert draw_rows(logits.to(device), rows, there, chance.to(device)).tolist() == expected
