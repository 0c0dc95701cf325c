"""What a runner offers whose steps are started without waiting for the one before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from inference.adapters.torch.runner_api import LogitsSummary, ModelRunner, StepBatch
from inference.adapters.torch.sampling import Filters


@dataclass(frozen=True, slots=True)
class Launched:
    """A step that the device has been told to run. Every field has a row for each of the batch's `logits_rows`."""

    logits: torch.Tensor
    summary: LogitsSummary
    # What the next step takes for tokens: the greedy choice, to be overwritten where another is drawn. int64
    drawn: torch.Tensor


@runtime_checkable
class LaunchingRunner(ModelRunner, Protocol):
    """A model runner whose next step can read the last one's tokens where they are."""

    # Rows of logits that a launched step may have.
    max_drawn: int

    def launch(self, batch: StepBatch, sources: NDArray[np.int32]) -> Launched:
        """Start a step without waiting for it, or for the one before.

        Row t takes the token drawn[sources[t]] of the step launched before, or token_ids[t] where sources[t] is -1.
        The result is valid until the next step is launched.
        """
        ...

    def draw_rows(
        self, logits: torch.Tensor, rows: torch.Tensor, filters: Filters, chance: torch.Tensor
    ) -> torch.Tensor:
        """As sampling.draw_rows, without waiting for the device: int64 [D] for D of the rows of `logits`."""
        ...
