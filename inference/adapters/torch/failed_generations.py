"""Which generations a step has made fail, and why: each ends alone, at the step's end."""

from __future__ import annotations

import traceback

import numpy as np
from numpy.typing import NDArray

from inference.core.port import EngineError, GenerationFailed, NonFiniteLogits, UnsupportedConstraint
from inference.core.scheduling.sequence import Sequence

from .batching import DrawnRows
from .constraints.grammars_in_use import Mask
from .engine_log import engine_log
from .generation import Generation

_log = engine_log()


class FailedGenerations:
    """The first error of each counts. Used on the engine's thread only."""

    def __init__(self) -> None:
        self._errors: dict[Generation, EngineError] = {}

    def __contains__(self, generation: Generation) -> bool:
        return generation in self._errors

    def add(self, generation: Generation, error: Exception) -> None:
        """Note that `generation` is to end with `error`, or with GenerationFailed for what is no EngineError."""
        if generation not in self._errors:
            self._errors[generation] = as_engine_error(error)

    def take(self) -> dict[Generation, EngineError]:
        """All of them, which are forgotten here."""
        errors, self._errors = self._errors, {}
        return errors

    def judge(
        self,
        sequences: list[Sequence | None],
        rows: DrawnRows,
        finite: NDArray[np.bool_],
        mask: Mask | None,
        counts: NDArray[np.bool_],
    ) -> None:
        """Fail whom a row that counts gives nothing to draw from; its row and those behind it count no more."""
        nothing = ~finite if mask is None else ~finite | mask.empty
        for row in np.flatnonzero(nothing & counts).tolist():
            seq = sequences[row]
            if seq is None or seq.owner in self:
                continue
            if mask is not None and row in mask.failed:
                self.add(seq.owner, mask.failed[row])
            elif finite[row]:
                self.add(seq.owner, _no_token(seq, int(rows.offsets[row])))
            else:
                self.add(seq.owner, not_finite(seq))
        for row, seq in enumerate(sequences):
            if seq is None or seq.owner in self:
                counts[row] = False


def as_engine_error(error: Exception) -> EngineError:
    """What a caller is told of an error in the share of one generation; the rest is in the log."""
    if isinstance(error, EngineError):
        return error
    # Without local variables, which hold prompts, and without the message, which may.
    where = traceback.extract_tb(error.__traceback__)[-1:]
    place = f"{where[0].filename.rpartition('/')[2]}:{where[0].lineno}" if where else ""
    _log.error("engine.generation_failed", error=type(error).__name__, at=place)
    return GenerationFailed(f"this generation failed within the engine ({type(error).__name__}); the log has the place")


def not_finite(seq: Sequence) -> NonFiniteLogits:
    """The error for a sequence whose logits cannot be drawn from."""
    adapter = seq.owner.request.adapter
    which = f"adapter {adapter!r}" if adapter else "the model's file"
    return NonFiniteLogits(f"the model's logits are not finite; if it happens to other requests too, check {which}")


def _no_token(seq: Sequence, behind: int) -> UnsupportedConstraint:
    written = len(seq.owner.emitted(seq.index)) + seq.owner.gained(seq.index) + behind
    return UnsupportedConstraint(
        f"after {written} tokens of choice {seq.index} it allows none of the vocabulary's tokens; "
        "name only characters that the vocabulary can write, and rules and references that come to an end"
    )
