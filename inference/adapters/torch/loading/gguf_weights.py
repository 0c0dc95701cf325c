"""Weights in GGUF blocks: dense through the gguf library, and as integer codes in groups of 32 where they are that.

Block layouts: the GGML quantization formats. Q4_0, Q4_1, Q8_0 and Q4_K are affine in groups of 32 with 4 or 8 bits, so
their codes are used as they are (Q4_K's products of scales are rounded to float16 when packed), and Q5_0's are 8-bit
codes that use 5. Q5_1, Q5_K and Q6_K fit neither form, so they have no codes here and are requantized.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from gguf.constants import GGMLQuantizationType as Kind
from gguf.quants import dequantize
from numpy.typing import NDArray

from .gguf_file import GgufFile, GgufTensor
from .weights import GROUP, Grouped, check_finite, finite, not_finite

_HALVES = {Kind.F16: torch.float16, Kind.BF16: torch.bfloat16}
_BITS = (
    {Kind.F32: 32, Kind.F16: 16, Kind.BF16: 16}
    | dict.fromkeys((Kind.Q8_0, Kind.Q6_K, Kind.Q5_K, Kind.Q5_1, Kind.Q5_0), 8)
    | dict.fromkeys((Kind.Q4_0, Kind.Q4_1, Kind.Q4_K), 4)
)
SUPPORTED = frozenset(_BITS)


@dataclass(frozen=True, slots=True)
class GgufWeight:
    """A tensor of a GGUF file. `rows`, where given, is the order that its rows are wanted in."""

    file: GgufFile
    tensor: GgufTensor
    rows: NDArray[np.int64] | None = None

    @property
    def source(self) -> str:
        """See Weight."""
        return f"{self.file.path.name}: tensor {self.tensor.name}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        return self.tensor.shape

    @property
    def bits(self) -> int:
        """5 and 6 bits count as 8."""
        return _BITS[self.tensor.kind]

    def dense(self) -> torch.Tensor:
        """Floats as they are; float32 from blocks."""
        if self.tensor.kind in _HALVES:
            halves = torch.from_numpy(self.file.raw(self.tensor).copy()).view(_HALVES[self.tensor.kind])
            shaped = check_finite(halves.view(self.tensor.shape), self.source)
            return shaped if self.rows is None else shaped[torch.from_numpy(self.rows)]
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused by name below
            values = np.asarray(dequantize(self.file.raw(self.tensor), self.tensor.kind), dtype=np.float32)
        values = values.reshape(self.tensor.shape)
        ordered = values if self.rows is None else values[self.rows]
        return check_finite(torch.from_numpy(np.require(ordered, requirements=["C", "W"])), self.source)

    def grouped(self) -> Grouped | None:
        """Codes of a block format in groups of 32; None for the others."""
        decode = _DECODERS.get(self.tensor.kind)
        if decode is None:
            return None
        with np.errstate(invalid="ignore", over="ignore"):
            grouped = decode(self.file.raw(self.tensor))
        if not finite(grouped):
            raise not_finite(self.source)
        return grouped if self.rows is None else grouped.take_rows(self.rows)


def _halves(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(raw).view(np.float16).astype(np.float32)


def _nibbles(packed: NDArray[np.uint8], rows: int) -> NDArray[np.uint8]:
    """Low nibbles of each run of 16 or 32 bytes first, then its high ones."""
    halves: NDArray[np.uint8] = np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=-2)
    return halves.reshape(rows, -1)


def _q4_0(raw: NDArray[np.uint8]) -> Grouped:
    blocks = raw.reshape(len(raw), -1, 18)
    scales = _halves(blocks[:, :, :2])[:, :, 0]
    return Grouped(_nibbles(blocks[:, :, 2:], len(raw)), scales, -8.0 * scales, 4)


def _q4_1(raw: NDArray[np.uint8]) -> Grouped:
    blocks = raw.reshape(len(raw), -1, 20)
    pair = _halves(blocks[:, :, :4])
    return Grouped(_nibbles(blocks[:, :, 4:], len(raw)), pair[:, :, 0].copy(), pair[:, :, 1].copy(), 4)


def _q5_0(raw: NDArray[np.uint8]) -> Grouped:
    """The fifth bits of a group's codes come first, code i's in bit i; zero is 16."""
    blocks = raw.reshape(len(raw), -1, 22)
    scales = _halves(blocks[:, :, :2])[:, :, 0]
    fifths = np.unpackbits(blocks[:, :, 2:6], axis=-1, bitorder="little").reshape(len(raw), -1)
    codes = (_nibbles(blocks[:, :, 6:], len(raw)) | fifths << np.uint8(4)) + np.uint8(128 - 16)
    return Grouped(codes, scales, -128.0 * scales, 8)


def _q8_0(raw: NDArray[np.uint8]) -> Grouped:
    blocks = raw.reshape(len(raw), -1, 2 + GROUP)
    scales = _halves(blocks[:, :, :2])[:, :, 0]
    codes: NDArray[np.uint8] = (blocks[:, :, 2:] ^ np.uint8(128)).reshape(
        len(raw), -1
    )  # two's complement to an offset of 128
    return Grouped(codes, scales, -128.0 * scales, 8)


def _k_scales(packed: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Eight 6-bit scales and eight 6-bit minimums out of 12 bytes."""
    low, middle, high = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = np.concatenate([low & 63, (high & 15) | ((low >> 6) << 4)], axis=-1)
    minimums = np.concatenate([middle & 63, (high >> 4) | ((middle >> 6) << 4)], axis=-1)
    return scales, minimums


def _k_affine(blocks: NDArray[np.uint8], rows: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    outer = _halves(blocks[:, :, :4])
    scales, minimums = _k_scales(blocks[:, :, 4:16])
    return (outer[:, :, :1] * scales).reshape(rows, -1), (-outer[:, :, 1:] * minimums).reshape(rows, -1)


def _q4_k(raw: NDArray[np.uint8]) -> Grouped:
    blocks = raw.reshape(len(raw), -1, 144)
    scales, minimums = _k_affine(blocks, len(raw))
    quarters = blocks[:, :, 16:].reshape(len(raw), -1, 4, 32)
    return Grouped(_nibbles(quarters, len(raw)), scales, minimums, 4)


_DECODERS = {Kind.Q4_0: _q4_0, Kind.Q4_1: _q4_1, Kind.Q5_0: _q5_0, Kind.Q8_0: _q8_0, Kind.Q4_K: _q4_k}
