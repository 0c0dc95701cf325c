"""Rotary frequencies: the plain ones, and how they are stretched for longer contexts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Frequencies = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched for longer contexts.

    "linear" divides every frequency by `factor`. "llama3" (Llama 3.1) divides the low ones, keeps the high ones and
    blends between, by wavelength against `original_context`. "yarn" does so by how often each turns within
    `original_context`: more than `beta_fast` times keeps, fewer than `beta_slow` divides (Peng et al., "YaRN: Efficient
    Context Window Extension of Large Language Models", 2023). "factors" divides frequency i by `factors[i]`, which is
    how GGUF files carry the result of "llama3", and LongRoPE's files theirs.
    """

    kind: Literal["linear", "llama3", "yarn", "factors"]
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192
    factors: tuple[float, ...] = ()
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    # Whether the edges of YaRN's blend are whole dimensions.
    truncate: bool = True


def yarn_attention_factor(factor: float, mscale: float = 1.0) -> float:
    """What YaRN multiplies rotated queries and keys by, unless a model says otherwise."""
    return 1.0 if factor <= 1.0 else 0.1 * mscale * math.log(factor) + 1.0


def plain_frequencies(theta: float, dims: int) -> Frequencies:
    """The rotary frequencies of `dims` dimensions in radians a position, [dims / 2]."""
    exponents = np.arange(0, dims, 2, dtype=np.float32) / np.float32(dims)
    frequencies: Frequencies = (1.0 / np.power(np.float32(theta), exponents)).astype(np.float32)
    return frequencies


def stretch(frequencies: Frequencies, scaling: RopeScaling, theta: float) -> Frequencies:
    """The frequencies as `scaling` has them; `theta` is the base that they were made of."""
    if scaling.kind == "linear":
        return (frequencies / scaling.factor).astype(np.float32)
    if scaling.kind == "factors":
        return (frequencies / np.asarray(scaling.factors, dtype=np.float32)).astype(np.float32)
    return _yarn(frequencies, scaling, theta) if scaling.kind == "yarn" else _llama3(frequencies, scaling)


def _llama3(frequencies: Frequencies, scaling: RopeScaling) -> Frequencies:
    wavelengths = 2 * math.pi / frequencies
    maximum = scaling.original_context / scaling.low_freq_factor
    minimum = scaling.original_context / scaling.high_freq_factor
    share = (scaling.original_context / wavelengths - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    blended = (1 - share) * frequencies / scaling.factor + share * frequencies
    stretched = np.where(wavelengths > maximum, frequencies / scaling.factor, blended)
    return np.where(wavelengths < minimum, frequencies, stretched).astype(np.float32)


def _yarn(frequencies: Frequencies, scaling: RopeScaling, theta: float) -> Frequencies:
    dims = 2 * len(frequencies)

    def turning(times: float) -> float:
        """The dimension that turns so many times within the original context."""
        return dims * math.log(scaling.original_context / (times * 2 * math.pi)) / (2 * math.log(theta))

    low, high = turning(scaling.beta_fast), turning(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    if low == high:
        high += 0.001  # as the reference has it: a step instead of a division by zero
    places = np.arange(len(frequencies), dtype=np.float32)
    divided = np.clip((places - np.float32(low)) / np.float32(high - low), 0, 1)
    blended: Frequencies = (frequencies / scaling.factor * divided + frequencies * (1 - divided)).astype(np.float32)
    return blended
