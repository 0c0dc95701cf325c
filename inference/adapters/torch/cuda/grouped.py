"""Weights in 4 or 8 bits as the kernels read them: codes in groups of 32, each group with a scale and a minimum.

Packed so that a strip of rows is one run of memory, and so that a code comes out of its word with a shift and a mask:
word j of a row's block holds, from its lowest bits up, the codes of columns j, j + 32, j + 64 and so on, one of each
group of the block. A block is 256 columns in 4 bits and 128 in 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inference.adapters.torch.loading.weights import GROUP, Grouped, Weight


@dataclass(frozen=True, slots=True)
class Codes:
    """Weights [N, K] before they are packed: `loading.weights.Grouped` as tensors of one device."""

    codes: torch.Tensor  # uint8 [N, K], below 2**bits
    scales: torch.Tensor  # float16 [N, K / 32]
    minimums: torch.Tensor  # float16 [N, K / 32]
    bits: int


@dataclass(frozen=True, slots=True)
class GroupedWeight:
    """A packed matrix [height, width]: weight = scale * code + minimum."""

    words: torch.Tensor  # int32 [blocks, height, 32]
    pairs: torch.Tensor  # int32 [groups, height]: scale in the low half, minimum in the high one, both float16
    height: int
    width: int
    bits: int


def codes_of(weight: Weight, bits: int, device: torch.device) -> Codes:
    """The file's own codes where they have no more bits than wanted; else rounded from its values, on the device."""
    grouped = weight.grouped()
    if grouped is not None and grouped.bits <= bits:
        return on_device(grouped, device)
    return quantize(weight.dense().to(device), bits)


def on_device(grouped: Grouped, device: torch.device) -> Codes:
    """A file's codes as tensors."""
    codes = torch.from_numpy(grouped.codes).to(device)
    scales, minimums = (torch.from_numpy(a).to(device, torch.float16) for a in (grouped.scales, grouped.minimums))
    return Codes(codes, scales, minimums, grouped.bits)


def quantize(dense: torch.Tensor, bits: int) -> Codes:
    """As `loading.weights.quantize` rounds: between each group's extremes (4), or symmetric around zero (8)."""
    rows, width = dense.shape
    groups = dense.float().view(rows, width // GROUP, GROUP)
    if bits == 8:
        scales = (groups.abs().amax(dim=2) / 127.0).half()
        minimums = -128.0 * scales
    else:
        minimums = groups.amin(dim=2).half()
        scales = ((groups.amax(dim=2) - minimums.float()) / (2**bits - 1)).half()
    steps = scales.float()
    steps = torch.where(steps == 0.0, 1.0, steps)[:, :, None]
    codes = ((groups - minimums.float()[:, :, None]) / steps).round_().clamp_(0, 2**bits - 1)
    return Codes(codes.to(torch.uint8).view(rows, width), scales, minimums, bits)


def pack(parts: list[Codes]) -> GroupedWeight:
    """Matrices of the same width below each other. Where they differ in bits, all get the most: codes stay exact."""
    bits = max(part.bits for part in parts)
    codes = torch.cat([part.codes for part in parts])
    scales, minimums = (torch.cat([getattr(part, name) for part in parts]) for name in ("scales", "minimums"))
    height, width = codes.shape
    per_word = 32 // bits
    groups = -(-width // (GROUP * per_word)) * per_word
    words = torch.zeros((groups // per_word, height, GROUP), dtype=torch.int32, device=codes.device)
    for group in range(width // GROUP):
        # Codes of two groups never share bits, so that adding them is joining them; a sign bit comes with the last.
        column = codes[:, group * GROUP : (group + 1) * GROUP].to(torch.int32)
        words[group // per_word] |= column << (group % per_word * bits)
    halves = torch.zeros((groups, height, 2), dtype=torch.float16, device=codes.device)
    halves[: width // GROUP, :, 0], halves[: width // GROUP, :, 1] = scales.t(), minimums.t()
    return GroupedWeight(words, halves.view(torch.int32)[:, :, 0], height, width, bits)
