"""The scripted runner of the engine's tests as a device would have it: a launched step reads the last one's tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from inference.adapters.torch.cuda.launching import Launched
from inference.adapters.torch.runner_api import StepBatch
from inference.adapters.torch.sampling import draw_rows
from tests.unit.inference.engine.fake_runner import FakeRunner


class LaunchingFake(FakeRunner):
    """Whatever the host put where a token is still unread is overwritten: only `sources` can say what it is."""

    max_drawn = 4096

    def __init__(self, *args, **more) -> None:
        super().__init__(*args, **more)
        self.drawn = torch.zeros(self.max_drawn, dtype=torch.int64)
        self.launches = 0

    def draw_rows(self, logits, rows, filters, chance) -> torch.Tensor:
        return draw_rows(self, logits, rows, filters, chance)

    def launch(self, batch: StepBatch, sources: np.ndarray) -> Launched:
        self.launches += 1
        tokens = batch.token_ids.copy()
        unread = sources >= 0
        assert not tokens[unread].any(), "the host knew a token that it cannot have read"
        tokens[unread] = self.drawn[torch.from_numpy(sources[unread]).long()].numpy()
        logits = self.forward(replace(batch, token_ids=tokens))
        summary = self.summarize(logits) if len(logits) else None
        drawn = self.drawn[: len(logits)]
        if summary is not None:
            drawn.copy_(summary.best)
        return Launched(logits, summary, drawn)
