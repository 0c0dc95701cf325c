"""Steps over a runner as the engine loop makes them, in the smallest form: one block table a sequence, greedy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from inference.adapters.torch.runner_api import BLOCK_SIZE, ModelRunner, StepBatch


def table(sequence: int, blocks: int = 8) -> list[int]:
    """Physical blocks of a test sequence, deliberately not in order and not adjacent to another's."""
    return [sequence * blocks + (blocks - 1 - i) for i in range(blocks)]


def batch(
    parts: Sequence[tuple[int, int, Sequence[int]]],
    rows: Sequence[int] | None = None,
    adapters: Sequence[int] | None = None,
    blocks: int = 8,
) -> StepBatch:
    """A step from (sequence, position of the first token, tokens); logits of every row unless `rows` says which."""
    lengths = [len(tokens) for _, _, tokens in parts]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    positions = [first + i for _, first, tokens in parts for i in range(len(tokens))]
    return StepBatch(
        token_ids=np.array([t for _, _, tokens in parts for t in tokens], dtype=np.int32),
        positions=np.array(positions, dtype=np.int32),
        query_starts=starts,
        context_lens=np.array([first + len(tokens) for _, first, tokens in parts], dtype=np.int32),
        block_tables=np.array([table(sequence, blocks) for sequence, _, _ in parts], dtype=np.int32),
        logits_rows=np.arange(starts[-1], dtype=np.int32) if rows is None else np.array(rows, dtype=np.int32),
        adapter_ids=np.array(adapters or [0] * len(parts), dtype=np.int32),
    )


def greedy(runner: ModelRunner, prompt: Sequence[int], count: int, blocks: int = 16) -> list[int]:
    """`count` greedy tokens after the prompt, which must fit the blocks."""
    assert len(prompt) + count <= blocks * BLOCK_SIZE
    step = batch([(0, 0, prompt)], rows=[len(prompt) - 1], blocks=blocks)
    tokens: list[int] = []
    while True:
        tokens.append(int(runner.forward(step).argmax(dim=-1)[0]))
        if len(tokens) == count:
            return tokens
        step = batch([(0, len(prompt) + len(tokens) - 1, tokens[-1:])], blocks=blocks)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference over the largest expected magnitude."""
    return float((actual - expected).abs().max() / expected.abs().max())
