"""Attention over paged KV memory in torch: any device, any mix of decode, chunks of prompts and drafts.

Source of the memory's layout: Kwon et al., "Efficient Memory Management for Large Language Model Serving with
PagedAttention", 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from .loading import ModelConfig
from .runner_api import BLOCK_SIZE, StepBatch


@dataclass(frozen=True, slots=True)
class _Part:
    """Sequences that run together: their flat rows [S, Q], the KV slots of their contexts [S, L], and positions."""

    rows: torch.Tensor
    slots: torch.Tensor
    positions: torch.Tensor


class StepLayout:
    """Where a step's tokens read and write KV memory; made once a step, used by every layer."""

    def __init__(self, batch: StepBatch, device: torch.device) -> None:
        self.positions = torch.from_numpy(batch.positions).to(device, torch.int64)
        self._tables = torch.from_numpy(batch.block_tables).to(device, torch.int64)
        starts = batch.query_starts
        owners = torch.repeat_interleave(
            torch.arange(len(starts) - 1), torch.from_numpy(starts[1:] - starts[:-1]).to(torch.int64)
        ).to(device)
        blocks = self._tables[owners, self.positions // BLOCK_SIZE]
        self.write_slots = blocks * BLOCK_SIZE + self.positions % BLOCK_SIZE
        lengths = (starts[1:] - starts[:-1]).tolist()
        single = [s for s, length in enumerate(lengths) if length == 1]
        self.parts = [self._part(batch, single)] if single else []
        self.parts += [self._part(batch, [s]) for s, length in enumerate(lengths) if length > 1]

    def _part(self, batch: StepBatch, sequences: list[int]) -> _Part:
        first = torch.from_numpy(batch.query_starts[sequences]).to(self.positions.device, torch.int64)
        count = int(batch.query_starts[sequences[0] + 1] - batch.query_starts[sequences[0]])
        rows = first[:, None] + torch.arange(count, device=first.device)
        maximum = int(batch.context_lens[sequences].max())
        keys = torch.arange(maximum, device=first.device)
        tables = self._tables[torch.tensor(sequences, device=first.device)].clamp(min=0)
        slots = tables[:, keys // BLOCK_SIZE] * BLOCK_SIZE + keys % BLOCK_SIZE
        return _Part(rows, slots, self.positions[rows])


class PagedKV:
    """Keys and values of all layers, [layers, 2, blocks * 16, kv heads, head size]."""

    def __init__(self, config: ModelConfig, num_blocks: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (config.layers, 2, num_blocks * BLOCK_SIZE, config.kv_heads, config.head_dim)
        self._memory = torch.zeros(shape, dtype=dtype, device=device)

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """Copy block src to block dst in all layers, for each (src, dst) in turn."""
        for tensor in self._tensors():
            blocks = tensor.view(*tensor.shape[:2], -1, BLOCK_SIZE, *tensor.shape[3:])
            for source, target in pairs:
                blocks[:, :, target] = blocks[:, :, source]

    def attend(
        self,
        layer: int,
        layout: StepLayout,
        qkv: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        scale: float,
        window: int,
    ) -> torch.Tensor:
        """Write the step's keys and values, then attend; q [T, heads, d], k and v [T, kv heads, d] -> [T, heads, d]."""
        queries, keys, values = qkv
        self._write(layer, layout.write_slots, keys, values)
        queries = self._fitted(queries)
        output = torch.empty_like(queries)
        for part in layout.parts:
            cached_keys, cached_values = self._read(layer, part.slots)
            key_positions = torch.arange(part.slots.shape[1], device=queries.device)
            seen = key_positions <= part.positions[:, :, None]
            if window:
                seen &= key_positions > part.positions[:, :, None] - window
            attended = F.scaled_dot_product_attention(
                queries[part.rows].transpose(1, 2),
                cached_keys.transpose(1, 2),
                cached_values.transpose(1, 2),
                attn_mask=seen[:, None],
                scale=scale,
                enable_gqa=True,
            )
            output[part.rows] = attended.transpose(1, 2)
        return output

    def _tensors(self) -> list[torch.Tensor]:
        """All memory, [layers, 2, blocks * 16, ...]."""
        return [self._memory]

    def _write(self, layer: int, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        self._memory[layer, 0, slots] = keys
        self._memory[layer, 1, slots] = values

    def _read(self, layer: int, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of slots [S, L], [S, L, kv heads, head size] each."""
        return self._memory[layer, 0, slots], self._memory[layer, 1, slots]

    def _fitted(self, queries: torch.Tensor) -> torch.Tensor:
        """Queries as they fit the keys that `_read` gives."""
        return queries
