"""A checkpoint's weights on the device: which precision each matrix gets, and the products and tables made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from inference.adapters.torch.loading import Checkpoint, ModelError
from inference.adapters.torch.loading.weights import GROUP

from .grouped import GroupedWeight, codes_of, pack
from .kernels.embedding import embed
from .kernels.grouped import embed_grouped
from .linear import Choices, DenseLinear, Float8Linear, GroupedLinear, Linear

PRECISIONS = ("auto", "bfloat16", "float32", "fp8", "int4", "int8")
_BITS = {"int4": 4, "int8": 8}
# What torch._scaled_mm takes.
_FP8_MULTIPLE = 16
_EMBEDDING, _HEAD = "embed_tokens.weight", "lm_head.weight"


class Embedding(Protocol):
    """A table [vocab, K]."""

    def __call__(self, tokens: torch.Tensor, sources: torch.Tensor, drawn: torch.Tensor, scale: float) -> torch.Tensor:
        """See kernels.embedding.embed."""
        ...


@dataclass(frozen=True, slots=True)
class _DenseTable:
    table: torch.Tensor

    def __call__(self, tokens: torch.Tensor, sources: torch.Tensor, drawn: torch.Tensor, scale: float) -> torch.Tensor:
        return embed(self.table, tokens, sources, drawn, scale)


@dataclass(frozen=True, slots=True)
class _GroupedTable:
    table: GroupedWeight
    dtype: torch.dtype

    def __call__(self, tokens: torch.Tensor, sources: torch.Tensor, drawn: torch.Tensor, scale: float) -> torch.Tensor:
        return embed_grouped(self.table, tokens, sources, drawn, scale, self.dtype)


class DeviceWeights:
    """Puts weights on a device. `precision` is what most of the layers' weights are held in, "auto" resolved."""

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, precision: str, choices: Choices, dtype: torch.dtype | None
    ) -> None:
        if precision not in PRECISIONS:
            raise ModelError(f"precision {precision!r}; CUDA has {', '.join(PRECISIONS)}")
        self._weights, self._config = checkpoint.weights, checkpoint.config
        self._device, self._choices = device, choices
        # "auto" keeps each matrix's own bits; files mix them.
        self._as_stored = precision == "auto"
        self.precision = self._stored() if self._as_stored else precision
        self.dtype = dtype or (torch.float32 if precision == "float32" else torch.bfloat16)
        if self.precision in _BITS:
            self._check_widths(GROUP)
        if self.precision == "fp8":
            self._check_widths(_FP8_MULTIPLE)

    def vector(self, name: str) -> torch.Tensor:
        """A norm's weights."""
        return self._dense(f"{name}.weight")

    def tables(self) -> tuple[Embedding, Linear]:
        """The embedding and the output layer, which share one table where the model ties them.

        They never have fewer than 8 bits, nor fewer than 16 beside fp8: they are what low precision harms most.
        """
        if self.precision in _BITS:
            table = self._packed([_EMBEDDING], minimum=8)
            head = table if self._config.tied else self._packed([_HEAD], minimum=8)
            return _GroupedTable(table, self.dtype), GroupedLinear(head, None, self._choices, self.dtype, wide=True)
        dense = self._dense(_EMBEDDING)
        output = dense if self._config.tied else self._dense(_HEAD)
        return _DenseTable(dense), DenseLinear(output, None, self._choices, wide=True)

    def linear(self, *names: str) -> Linear:
        """One product for several projections of the same rows."""
        weights = [f"{name}.weight" for name in names]
        bias = None
        if any(f"{name}.bias" in self._weights for name in names):
            bias = torch.cat([self._dense(f"{name}.bias") for name in names])
        if self.precision in _BITS:
            return GroupedLinear(self._packed(weights), bias, self._choices, self.dtype)
        weight = torch.cat([self._dense(name) for name in weights])
        kind = Float8Linear if self.precision == "fp8" else DenseLinear
        return kind(weight, bias, self._choices)

    def _dense(self, name: str) -> torch.Tensor:
        return self._weights[name].dense().to(self._device, self.dtype)

    def _packed(self, names: list[str], minimum: int = 4) -> GroupedWeight:
        return pack([codes_of(self._weights[name], max(minimum, self._bits(name)), self._device) for name in names])

    def _bits(self, name: str) -> int:
        return min(self._weights[name].bits, 8) if self._as_stored else _BITS[self.precision]

    def _stored(self) -> str:
        bits = self._weights["layers.0.mlp.up_proj.weight"].bits
        return f"int{bits}" if bits <= 8 else "bfloat16"

    def _check_widths(self, multiple: int) -> None:
        c = self._config
        widths = {"hidden": c.hidden, "intermediate": c.intermediate, "attention": c.heads * c.head_dim}
        for name, width in widths.items():
            if width % multiple:
                raise ModelError(
                    f"precision {self.precision!r}: {c.name}'s {name} size {width} is no multiple of {multiple}"
                )
