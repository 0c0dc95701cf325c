"""Drawing for a step; where that fails as a whole, again for one sequence after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from .batching import DrawnRows
from .engine_log import engine_log
from .sampling import Drawn, Sampler
from .sampling_table import RequestRows

_log = engine_log()
Failed = Callable[[int, Exception], None]


def draw(
    sampler: Sampler,
    logits: torch.Tensor,
    rows: DrawnRows,
    request_rows: RequestRows,
    positions: NDArray[np.int64],
    *,
    allowed: torch.Tensor | None,
    failed: Failed,
) -> Drawn:
    """As Sampler.draw. `failed` hears of slots whose rows cannot be drawn for; what stands there counts for nothing."""
    try:
        return sampler.draw(logits, request_rows, positions, allowed)
    except Exception as error:
        _log.error("engine.rows_drawn_apart", error=type(error).__name__, rows=len(logits))
    count = len(logits)
    logprob, entropy, margin = np.zeros((3, count), np.float32)
    drawn = Drawn(np.zeros(count, np.int32), logprob, entropy, margin, {}, np.ones(count, np.bool_))
    for slot in np.unique(rows.slots).tolist():
        places = np.flatnonzero(rows.slots == slot)
        which = torch.from_numpy(places)
        some = None if allowed is None else allowed[which]
        try:
            part = sampler.draw(logits[which.to(logits.device)], request_rows[places], positions[places], some)
        except Exception as error:
            failed(slot, error)
            continue
        for name in ("tokens", "logprob", "entropy", "margin", "finite"):
            getattr(drawn, name)[places] = getattr(part, name)
        drawn.top.update({int(places[row]): top for row, top in part.top.items()})
    return drawn
