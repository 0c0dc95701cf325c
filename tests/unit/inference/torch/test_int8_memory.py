"""KV memory in 8 bits: the native kernels against their torch twin, and what memory of any precision must do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.adapters.torch.runner import RunnerOptions, build_runner
from inference.native import library

from .attention_twin import Attention, shape
from .steps import batch, relative_error

pytestmark = pytest.mark.usefixtures("kernels")
TEXT = np.random.default_rng(3).integers(3, 160, size=60).tolist()


@settings(max_examples=25, deadline=None)
@given(st.data())
@pytest.mark.parametrize(("kept", "bound"), [("int8", 1e-3), ("float16", 1e-4)])
def test_kernel_is_its_torch_twin(kept: str, bound: float, data: st.DataObject) -> None:
    """Chunks, decode and drafts of up to three sequences, whatever the heads, their size, the window and the blocks."""
    kv_heads, group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 7))
    head_dim = data.draw(st.sampled_from([32, 64, 96, 128, 160, 256]))
    window = data.draw(st.sampled_from([0, 0, 7, 40]))
    attention = Attention(library.load(), shape(kv_heads * group, kv_heads, head_dim, window), kept)
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    at = [0] * data.draw(st.integers(1, 3))
    for _ in range(data.draw(st.integers(1, 3))):
        counts = [data.draw(st.integers(1, 40)) for _ in at]
        step = batch([(s, at[s], [0] * count) for s, count in enumerate(counts)])
        at = [position + count for position, count in zip(at, counts, strict=True)]
        q, k, v = (torch.randn(sum(counts), n, head_dim, generator=rng) for n in (kv_heads * group, kv_heads, kv_heads))
        k[:, :, 3] *= data.draw(st.sampled_from([1, 30]))
        v[:, 0] *= data.draw(st.sampled_from([0, 1e-3, 100]))
        actual, expected = attention.both(step, (q, k, v))
        assert (actual - expected).abs().max() <= bound * max(float(expected.abs().max()), 1e-6)
    attention.native.close()


def test_a_channel_that_stands_out_does_not_drown_the_others() -> None:
    """Keys of Qwen have a bias that is a hundred times the rest in some channels, and the same at all positions."""
    attention = Attention(library.load(), shape(4, 2, 64), "int8")
    rng = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(60, heads, 64, generator=rng) for heads in (4, 2, 2))
    k[:, :, 31] += 100
    actual, _ = attention.both(batch([(0, 0, TEXT)]), (q, k, v))
    scores = torch.einsum("thd,shd->hts", q, k.repeat_interleave(2, dim=1)) / 8
    weights = scores.masked_fill(torch.ones(60, 60).triu(1).bool(), -torch.inf).softmax(-1)
    assert relative_error(actual, torch.einsum("hts,shd->thd", weights, v.repeat_interleave(2, dim=1))) < 0.05
    attention.native.close()


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_half_the_memory_and_nearly_the_same_logits(llama: tuple[Path, Any], precision: Any) -> None:
    """In plain torch and in the kernels: prompt, decode beside another prompt, and a fork."""
    wide, narrow = (
        build_runner(RunnerOptions(llama[0], precision=precision, kv_precision=kv, num_blocks=64))
        for kv in ("auto", "int8")
    )
    # 3 layers of 2 heads of 32 channels: keys and values, and two scales of two bytes.
    assert narrow.spec.kv_bytes_per_token == 3 * 2 * (2 * 32 + 2 * 2)
    for step in (batch([(0, 0, TEXT[:33])]), batch([(0, 33, TEXT[33:34]), (1, 0, TEXT[10:27])])):
        expected = wide.forward(step).clone()
        actual = narrow.forward(step).clone()
        assert 0 < relative_error(actual, expected) < 0.05
    narrow.copy_blocks([(7, 63), (6, 62), (5, 61)])  # sequence 0's first three blocks to sequence 7's
    forked = narrow.forward(batch([(7, 33, TEXT[33:34])]))
    torch.testing.assert_close(forked, actual[:1], rtol=1e-5, atol=1e-5)
