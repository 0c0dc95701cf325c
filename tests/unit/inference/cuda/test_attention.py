"""The attention kernels over scattered pages, against attention over the same keys in one piece."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")

from inference.adapters.torch.cuda.kernels.decode_attention import Contexts, decode_attention, splits_for
from inference.adapters.torch.cuda.kernels.prefill_attention import TILE, prefill_attention
from inference.adapters.torch.cuda.memory import Pages

HEADS, KV_HEADS, DIM, PAGE = 6, 2, 16, 16


class House:
    """Sequences of given (new rows, context length), their keys in pages dealt out at random."""

    def __init__(self, parts: list[tuple[int, int]], device: torch.device) -> None:
        self.parts = parts
        width = max(-(-length // PAGE) for _, length in parts) + 1
        pages = torch.randperm(len(parts) * width).view(len(parts), width)
        self.dense = [(torch.randn(KV_HEADS, n, DIM), torch.randn(KV_HEADS, n, DIM)) for _, n in parts]
        memory = torch.full((2, len(parts) * width, KV_HEADS, PAGE, DIM), 1e4)
        for sequence, both in enumerate(self.dense):
            for position in range(both[0].shape[1]):
                for kind in range(2):
                    memory[kind, pages[sequence, position // PAGE], :, position % PAGE] = both[kind][:, position]
        rows = torch.tensor([0, *(count for count, _ in parts)]).cumsum(0)
        self.queries = torch.randn(int(rows[-1]), HEADS, DIM)
        ints = {"dtype": torch.int32, "device": device}
        self.contexts = Contexts(
            rows.to(**ints),
            torch.tensor([n for _, n in parts], **ints),
            pages.flatten().to(**ints),
            torch.tensor([width], **ints),
        )
        self.pages = Pages(memory[0].to(device), memory[1].to(device))

    def expected(self, sequence: int, window: int) -> torch.Tensor:
        """Attention of the sequence's rows, [rows, heads, d]."""
        count, length = self.parts[sequence]
        first = sum(n for n, _ in self.parts[:sequence])
        keys, values = (t.repeat_interleave(HEADS // KV_HEADS, 0) for t in self.dense[sequence])
        here = torch.arange(length - count, length)[:, None]
        seen = torch.arange(length)[None, :] <= here
        if window:
            seen &= torch.arange(length)[None, :] > here - window
        queries = self.queries[first : first + count].transpose(0, 1)
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, scale=0.3).transpose(0, 1)


@pytest.mark.parametrize(("splits", "window"), [(1, 0), (4, 0), (1, 20), (2, 70)])
def test_decode(device: torch.device, splits: int, window: int) -> None:
    """Long and short contexts beside each other; more parts than there are blocks; rows that are not asked for stay."""
    house = House([(1, 150), (3, 9), (1, 1), (1, 64)], device)
    members = torch.tensor([0, 2, 3], dtype=torch.int32, device=device)
    out = torch.full_like(house.queries, 7.0).to(device)
    decode_attention(
        house.queries.to(device), house.pages, members, house.contexts, out, scale=0.3, window=window, splits=splits
    )
    for sequence, row in ((0, 0), (2, 4), (3, 5)):
        torch.testing.assert_close(out[row].cpu(), house.expected(sequence, window)[0], rtol=1e-4, atol=1e-4)
    assert (out[1:4] == 7.0).all()


@pytest.mark.parametrize("splits", [1, 2])
def test_decode_of_a_padding_row_is_zero(device: torch.device, splits: int) -> None:
    """A row without a context reads nothing."""
    house = House([(1, 5)], device)
    house.contexts.lengths.zero_()
    out = torch.full_like(house.queries, 7.0).to(device)
    members = torch.zeros(1, dtype=torch.int32, device=device)
    decode_attention(
        house.queries.to(device), house.pages, members, house.contexts, out, scale=0.3, window=0, splits=splits
    )
    assert not out.any()


@pytest.mark.parametrize("window", [0, 10, 100])
def test_prefill(device: torch.device, window: int) -> None:
    """A fresh prompt over two tiles, a chunk behind a long context, and a short one, beside a row that decodes."""
    house = House([(TILE + 6, TILE + 6), (1, 40), (5, 140), (2, 2)], device)
    members = torch.tensor([0, 0, 2, 3], dtype=torch.int32, device=device)
    offsets = torch.tensor([0, TILE, 0, 0], dtype=torch.int32, device=device)
    out = torch.full_like(house.queries, 7.0).to(device)
    prefill_attention(
        house.queries.to(device), house.pages, (members, offsets), house.contexts, out, scale=0.3, window=window
    )
    first = 0
    for sequence, (count, _) in enumerate(house.parts):
        expected = house.expected(sequence, window) if sequence != 1 else torch.full((1, HEADS, DIM), 7.0)
        torch.testing.assert_close(out[first : first + count].cpu(), expected, rtol=1e-4, atol=1e-4)
        first += count


def test_splits_fill_the_device_and_no_more() -> None:
    """Few sequences are cut into many parts, many into none; always a power of two, as the joining kernel needs."""
    assert [splits_for(n, 8, 132) for n in (1, 8, 32, 64, 128)] == [32, 8, 2, 1, 1]
