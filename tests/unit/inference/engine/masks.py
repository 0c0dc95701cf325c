"""Masks as the engine holds them."""

from __future__ import annotations

import numpy as np
import torch


def words_of(may: np.ndarray) -> torch.Tensor:
    """int32 [R, ceil(vocab / 32)] for bool [R, vocab]; the bits beyond the vocabulary say yes, and must not count."""
    padded = np.ones((len(may), -(-may.shape[1] // 32) * 32), np.bool_)
    padded[:, : may.shape[1]] = may
    return torch.from_numpy(np.packbits(padded, axis=1, bitorder="little").view(np.int32).copy())
