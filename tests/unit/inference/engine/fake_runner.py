"""A runner whose logits follow from what its KV memory holds, so that a wrong block shows as a wrong token."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import torch

from inference.adapters.torch.logits import candidates, summarize
from inference.adapters.torch.runner_api import BLOCK_SIZE, Candidates, LogitsSummary, ModelSpec, StepBatch

VOCAB = 128
EOS = 127
MASK = (1 << 40) - 1


def digest(before: int, token: int, adapter: int = 0) -> int:
    """What a cell holds: it depends on every token up to its own."""
    return ((before ^ (token + 1 + 1000 * adapter)) * 0x5851F42D4C957F2D + 0x14057B7E) & MASK


class FakeRunner:
    """`noise` moves the logits, as another model's would be; `sharpness` scales them."""

    def __init__(
        self,
        num_blocks: int = 64,
        *,
        context_length: int = 256,
        noise: float = 0.0,
        sharpness: float = 4.0,
        vocab: int = VOCAB,
    ) -> None:
        self.block_size = BLOCK_SIZE
        self.num_blocks = num_blocks
        self.spec = ModelSpec("fake", "r1", "fake", 1, vocab, context_length, (EOS,), 8, "float32", "cpu")
        rng = np.random.default_rng(7)
        self.table = rng.standard_normal((256, vocab)).astype(np.float32) * sharpness
        self.table[:, EOS] += 0.8 * sharpness
        self.table += np.random.default_rng(8).standard_normal(self.table.shape).astype(np.float32) * noise
        self.cells = np.full((num_blocks, BLOCK_SIZE), -1, np.int64)
        self.steps: list[StepBatch] = []
        self.fail_next: Exception | None = None
        # Every step after so many waits for `go`.
        self.hold_after: int | None = None
        self.go = threading.Event()
        self.closed = False
        self.adapters: dict[int, Path] = {}
        self.drawn_rows = 0

    def forward(self, batch: StepBatch) -> torch.Tensor:
        if self.hold_after is not None and len(self.steps) >= self.hold_after:
            assert self.go.wait(60)
        if self.fail_next is not None:
            raise self.fail_next
        self.steps.append(batch)
        keys = np.zeros(len(batch.token_ids), np.int64)
        for s in range(len(batch.context_lens)):
            start, end = batch.query_starts[s], batch.query_starts[s + 1]
            blocks = batch.block_tables[s]
            for row in range(start, end):
                position = int(batch.positions[row])
                cells = self.cells[blocks].reshape(-1)
                before = int(cells[position - 1]) if position else 0
                self.cells[blocks[position // BLOCK_SIZE], position % BLOCK_SIZE] = digest(
                    before, int(batch.token_ids[row]), int(batch.adapter_ids[s])
                )
                keys[row] = int(self.cells[blocks].reshape(-1)[: position + 1].sum()) & MASK
            assert batch.context_lens[s] == batch.positions[end - 1] + 1
        return torch.from_numpy(self.logits(keys[batch.logits_rows]))

    def logits(self, keys: np.ndarray) -> np.ndarray:
        return self.table[(keys >> 8) & 255] + self.table[(keys >> 20) & 255]

    def expected(self, prompt, count: int, adapter: int = 0, ignore_eos: bool = False) -> list[int]:
        """The greedy answer, from the tokens alone."""
        cells: list[int] = []
        for token in prompt:
            cells.append(digest(cells[-1] if cells else 0, int(token), adapter))
        answer: list[int] = []
        while len(answer) < count:
            token = int(self.logits(np.array([sum(cells) & MASK]))[0].argmax())
            if token == EOS and not ignore_eos:
                break
            answer.append(token)
            cells.append(digest(cells[-1], token, adapter))
        return answer

    def summarize(self, logits: torch.Tensor, allowed: torch.Tensor | None = None) -> LogitsSummary:
        return summarize(logits, allowed)

    def candidates(self, logits, rows, temperature, count, allowed=None) -> Candidates:
        return candidates(logits, rows, temperature, count, allowed)

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        for source, destination in pairs:
            self.cells[destination] = self.cells[source]

    def load_adapter(self, path: Path) -> int:
        slot = len(self.adapters) + 1
        self.adapters[slot] = path
        return slot

    def unload_adapter(self, slot: int) -> None:
        del self.adapters[slot]

    def close(self) -> None:
        self.closed = True
