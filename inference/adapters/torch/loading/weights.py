"""One weight matrix as its file holds it: dense, or integer codes in groups of 32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

GROUP = 32


@dataclass(frozen=True, slots=True)
class Grouped:
    """Integer codes with a scale and a minimum for each 32 along a row: weight = scale * code + minimum."""

    codes: NDArray[np.uint8]  # [N, K], below 2**bits
    scales: NDArray[np.float32]  # [N, K / 32]
    minimums: NDArray[np.float32]  # [N, K / 32]
    bits: int

    def dense(self) -> NDArray[np.float32]:
        """The weights that the codes stand for, [N, K]."""
        rows, width = self.codes.shape
        codes = self.codes.reshape(rows, width // GROUP, GROUP).astype(np.float32)
        return (codes * self.scales[:, :, None] + self.minimums[:, :, None]).reshape(rows, width)

    def take_rows(self, rows: NDArray[np.int64]) -> Grouped:
        """The same weights with their rows in the order given."""
        return Grouped(self.codes[rows], self.scales[rows], self.minimums[rows], self.bits)


def quantize(dense: NDArray[np.float32], bits: int) -> Grouped:
    """Round to the nearest of 2**bits levels between each group's extremes (4), or symmetric around zero (8).

    Scales are rounded to float16 first, so that what is stored is what the codes were chosen for.
    """
    rows, width = dense.shape
    groups = dense.reshape(rows, width // GROUP, GROUP)
    if bits == 8:
        scales = _half(np.abs(groups).max(axis=2) / 127.0)
        minimums = -128.0 * scales
    else:
        minimums = _half(groups.min(axis=2))
        scales = _half((groups.max(axis=2) - minimums) / (2**bits - 1))
    steps = np.where(scales == 0.0, 1.0, scales)[:, :, None]
    codes = np.clip(np.rint((groups - minimums[:, :, None]) / steps), 0, 2**bits - 1).astype(np.uint8)
    return Grouped(codes.reshape(rows, width), scales, minimums, bits)


def _half(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.astype(np.float16).astype(np.float32)


class Weight(Protocol):
    """A matrix [out, in] or a vector, not yet read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first, as torch has it."""
        ...

    @property
    def bits(self) -> int:
        """What a value takes as stored, rounded up to 4, 8, 16 or 32."""
        ...

    def dense(self) -> torch.Tensor:
        """The weights in the file's own float type; float32 where the file holds codes."""
        ...

    def grouped(self) -> Grouped | None:
        """The file's own integer codes; None where it holds floats, or codes in no groups of 32."""
        ...
