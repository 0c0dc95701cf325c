"""Matrix products with weights that stay on the device, each by the fastest way that was measured for its size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from .grouped import GroupedWeight
from .kernels.grouped import dequantize, grouped_product
from .kernels.norms import quantize_rows
from .kernels.skinny import Shape, skinny_product
from .rows import FLOAT8, FLOAT8_MAX, Rows

# For weights in groups where nothing was measured.
_UNMEASURED = Shape(strip=64, stages=3)

# Rows, height and width of a product, and what its weights are held in.
Size = tuple[int, int, int, str]


@dataclass(slots=True)
class Choices:
    """How products are made, by size: by our kernel in a shape, or with None by the library (cuBLAS, CUTLASS)."""

    shapes: dict[Size, Shape | None] = field(default_factory=dict)
    # Rows that weights in groups were measured at, ascending.
    rows: tuple[int, ...] = ()

    def nearest(self, rows: int, size: tuple[int, int, str], unmeasured: Shape) -> Shape | None:
        """What was chosen for the fewest rows that are at least `rows`, or for the most that there are."""
        for measured in self.rows:
            if measured >= rows:
                return self.shapes.get((measured, *size), unmeasured)
        return self.shapes.get((self.rows[-1], *size), unmeasured) if self.rows else unmeasured


class Linear(Protocol):
    """A projection: x [T, K] -> [T, N]."""

    @property
    def quantized(self) -> bool:
        """Whether it takes its rows in float8."""
        ...

    @property
    def size(self) -> tuple[int, int, str]:
        """Height N, width K, and the name of what the weights are held in."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """What rows are in before they are quantized."""
        ...

    def __call__(self, x: Rows) -> torch.Tensor:
        """The product, with the bias if there is one."""
        ...


class DenseLinear:
    """Weights [N, K] in bfloat16 or float32. `wide` results are float32 whatever the weights are."""

    quantized = False

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, choices: Choices, *, wide: bool = False
    ) -> None:
        self._weight, self._bias, self._choices = weight.contiguous(), bias, choices
        self._wide = wide
        self.dtype = weight.dtype
        self.size = (*weight.shape, str(weight.dtype).removeprefix("torch."))

    def __call__(self, x: Rows) -> torch.Tensor:
        """See Linear."""
        dtype = torch.float32 if self._wide else self._weight.dtype
        shape = self._choices.shapes.get((len(x.values), *self.size))
        if shape is not None:
            return skinny_product(x, self._weight, None, self._bias, dtype, shape)
        return library_product(x.values, self._weight, self._bias, wide=self._wide)


class Float8Linear:
    """Weights in float8 with a scale for each output channel, rows in float8 with a scale for each of them."""

    quantized = True

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, choices: Choices) -> None:
        self.dtype = weight.dtype
        wide = weight.float()
        self._scales = (wide.abs().amax(dim=1) / FLOAT8_MAX).clamp(min=1e-10)
        self._weight = (wide / self._scales[:, None]).to(FLOAT8).contiguous()
        self._bias, self._choices = bias, choices
        self.size = (*weight.shape, "fp8")

    def __call__(self, x: Rows) -> torch.Tensor:
        """See Linear."""
        assert x.scales is not None  # the caller asks `quantized` first
        shape = self._choices.shapes.get((len(x.values), *self.size))
        if shape is not None:
            return skinny_product(x, self._weight, self._scales, self._bias, self.dtype, shape)
        product: torch.Tensor = torch._scaled_mm(
            x.values,
            self._weight.t(),
            scale_a=x.scales[:, None],
            scale_b=self._scales[None, :],
            # The row-wise kernels give bfloat16 alone.
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        product = product.to(self.dtype)
        return product if self._bias is None else product + self._bias


class GroupedLinear:
    """Weights in 4 or 8 bits in groups of 32, rows and results in `dtype`. `wide` results are float32."""

    quantized = False

    def __init__(
        self,
        weight: GroupedWeight,
        bias: torch.Tensor | None,
        choices: Choices,
        dtype: torch.dtype,
        *,
        wide: bool = False,
    ) -> None:
        self._weight, self._bias, self._choices = weight, bias, choices
        self.dtype, self._wide = dtype, wide
        self.size = (weight.height, weight.width, f"int{weight.bits}")

    def __call__(self, x: Rows) -> torch.Tensor:
        """See Linear."""
        shape = self._choices.nearest(len(x.values), self.size, _UNMEASURED)
        if shape is not None:
            dtype = torch.float32 if self._wide else self.dtype
            return grouped_product(x.values, self._weight, self._bias, dtype, shape)
        return library_product(x.values, dequantize(self._weight, self.dtype), self._bias, wide=self._wide)


def library_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *, wide: bool) -> torch.Tensor:
    """X [T, K] times weight [N, K] transposed, plus bias; `wide`: in float32, straight from the sums if it can be."""
    if wide and weight.is_cuda and weight.dtype != torch.float32 and bias is None:
        return torch.mm(x, weight.t(), out_dtype=torch.float32)
    product = F.linear(x, weight, bias)
    return product.float() if wide else product


def rows_for(linear: Linear, x: torch.Tensor) -> Rows:
    """Rows as `linear` takes them, from x [T, K] in the network's own dtype."""
    return quantize_rows(x.contiguous()) if linear.quantized else Rows(x)
