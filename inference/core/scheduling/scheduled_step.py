"""What a step is bounded by, and what it was decided to be."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inference.core.scheduling.cost import Work
from inference.core.scheduling.sequence import Sequence
from inference.core.scheduling.table import Rows


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds in sequences, tokens and seconds.

    `token_budget` bounds one step, drafts included, and leaves room for prompts; `step_s` is what a step is to take.
    """

    max_running: int
    token_budget: int
    context_length: int
    step_s: float = 0.08

    def __post_init__(self) -> None:
        if self.max_running < 1:
            raise ValueError(f"max_running must be at least 1, not {self.max_running}")
        if self.token_budget <= self.max_running:
            raise ValueError(
                f"token_budget {self.token_budget} must exceed max_running {self.max_running}, or prompts never run"
            )


@dataclass(slots=True)
class ScheduledStep:
    """One step. Entry i of each array is about the sequence in slot `rows[i]`."""

    rows: Rows
    # Tokens to run, and whether the last known token is among them, so that the next can be drawn.
    counts: NDArray[np.int32]
    draws: NDArray[np.bool_]
    # What it is made of, for its cost.
    work: Work
    # Block copies (source, destination) to make before the step.
    copies: list[tuple[int, int]] = field(default_factory=list)
    # Sequences that got a slot for this step.
    started: list[Sequence] = field(default_factory=list)
