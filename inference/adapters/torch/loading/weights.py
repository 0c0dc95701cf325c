"""One weight matrix as its file holds it: dense, or integer codes in groups of 32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from .errors import ModelError

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
    with np.errstate(over="ignore"):  # `rounded` finds what became infinite
        return values.astype(np.float16).astype(np.float32)


class Weight(Protocol):
    """A matrix [out, in], one for each expert, or a vector; not yet read.

    Reading raises ModelError, naming `source`, where a value is not finite.
    """

    @property
    def source(self) -> str:
        """The file and the tensor in it, as errors name them."""
        ...

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


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows `start` to `stop` of a matrix that holds several projections."""

    whole: Weight
    start: int
    stop: int

    @property
    def source(self) -> str:
        """The matrix that these rows are of."""
        return self.whole.source

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        return (self.stop - self.start, *self.whole.shape[1:])

    @property
    def bits(self) -> int:
        """As the matrix."""
        return self.whole.bits

    def dense(self) -> torch.Tensor:
        """The rows, in memory of their own."""
        return self.whole.dense()[self.start : self.stop].clone()

    def grouped(self) -> Grouped | None:
        """The rows' codes."""
        grouped = self.whole.grouped()
        return None if grouped is None else grouped.take_rows(np.arange(self.start, self.stop))


@dataclass(frozen=True, slots=True)
class Stacked:
    """The same matrix of every expert, [experts, out, in]."""

    parts: Sequence[Weight]

    @property
    def source(self) -> str:
        """The first expert's."""
        return self.parts[0].source

    @property
    def shape(self) -> tuple[int, ...]:
        """Experts first."""
        return (len(self.parts), *self.parts[0].shape)

    @property
    def bits(self) -> int:
        """As the first expert's."""
        return self.parts[0].bits

    def dense(self) -> torch.Tensor:
        """All experts' weights."""
        return torch.stack([part.dense() for part in self.parts])

    def grouped(self) -> Grouped | None:
        """None: experts are used as floats."""
        return None


def rounded(weight: Weight, bits: int) -> Grouped:
    """The weight in codes of so many bits. Raises ModelError where its values are beyond what scales can hold."""
    with np.errstate(invalid="ignore"):
        grouped = quantize(weight.dense().float().numpy(), bits)
    if not finite(grouped):
        raise ModelError(f"{weight.source} holds values too large for int{bits}; choose another precision")
    return grouped


def finite(grouped: Grouped) -> bool:
    """Whether all the weights that the codes stand for are finite numbers."""
    return bool(np.isfinite(grouped.scales).all() and np.isfinite(grouped.minimums).all())


def not_finite(source: str) -> ModelError:
    """The error about a tensor that no answer can be computed with."""
    return ModelError(f"{source} holds values that are not finite (NaN or infinity): the file is damaged")


def check_finite(values: torch.Tensor, source: str) -> torch.Tensor:
    """The values themselves. Raises ModelError where one is NaN or infinite."""
    if not bool(values.isfinite().all()):
        raise not_finite(source)
    return values
