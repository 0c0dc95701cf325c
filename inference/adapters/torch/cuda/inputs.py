"""One step's integers, packed into one transfer to the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from inference.adapters.torch.runner_api import BLOCK_SIZE, StepBatch

from .kernels.decode_attention import Contexts
from .kernels.prefill_attention import TILE

# Fields start at multiples of 16 bytes: kernels are compiled anew for pointers that do not.
_ALIGNMENT = 4

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class StepInputs:
    """A step on the device; all int32. T flat rows, S sequences, N of them with a single row, R rows of logits."""

    tokens: torch.Tensor  # [T]
    sources: torch.Tensor  # [T]; place among the last step's drawn tokens, or -1 where `tokens` says
    positions: torch.Tensor  # [T]
    slots: torch.Tensor  # [T]; where keys and values are written
    contexts: Contexts
    members: torch.Tensor  # [N]; sequences that run one row
    tiles: tuple[torch.Tensor, torch.Tensor]  # sequence and first row of each tile of the others
    logits_rows: torch.Tensor | None  # [R]; None: all rows, in order


@dataclass(frozen=True, slots=True)
class Sizes:
    """Entries of each field of a step but its page tables."""

    tokens: int
    sequences: int
    singles: int
    tiles: int
    logits: int

    def offsets(self) -> tuple[list[tuple[int, int]], int]:
        """(offset, length) of every field in the order that `pack` writes them, and where the page tables start."""
        t, s = self.tokens, self.sequences
        lengths = [1, t, t, t, t, s + 1, s, self.singles, self.tiles, self.tiles, self.logits]
        fields, at = [], 0
        for length in lengths:
            fields.append((at, length))
            at += -(-length // _ALIGNMENT) * _ALIGNMENT
        return fields, at


def pack(batch: StepBatch, sources: Ints) -> tuple[Ints, Sizes]:
    """The step as one array."""
    lengths = np.diff(batch.query_starts)
    members = np.flatnonzero(lengths == 1).astype(np.int32)
    tiles = -(-lengths // TILE) * (lengths > 1)
    tile_members = np.repeat(np.arange(len(lengths), dtype=np.int32), tiles)
    tile_offsets = (np.arange(len(tile_members)) - np.repeat(np.cumsum(tiles) - tiles, tiles)) * TILE
    sizes = Sizes(len(batch.token_ids), len(lengths), len(members), len(tile_members), len(batch.logits_rows))
    fields = [
        np.array([batch.block_tables.shape[1]]),
        batch.token_ids,
        sources,
        batch.positions,
        write_slots(batch, lengths),
        batch.query_starts,
        batch.context_lens,
        members,
        tile_members,
        tile_offsets,
        batch.logits_rows,
    ]
    return join(fields, batch.block_tables, sizes), sizes


def write_slots(batch: StepBatch, lengths: Ints) -> Ints:
    """Where each row's keys and values go."""
    owners = np.repeat(np.arange(len(lengths)), lengths)
    blocks = batch.block_tables[owners, batch.positions // BLOCK_SIZE]
    slots: Ints = blocks * BLOCK_SIZE + batch.positions % BLOCK_SIZE
    return slots


def join(fields: list[NDArray[np.generic]], tables: Ints, sizes: Sizes) -> Ints:
    """Fields, then page tables, in one array laid out as `sizes` says."""
    places, end = sizes.offsets()
    flat = np.zeros(end + tables.size, np.int32)
    for (at, length), values in zip(places, fields, strict=True):
        flat[at : at + length] = values
    # Entries that no position reaches are -1 in the batch, and are not read.
    flat[end:] = tables.ravel()
    return flat


def view(flat: torch.Tensor, sizes: Sizes, *, all_logits: bool) -> StepInputs:
    """The fields of a packed step that lies on the device."""
    places, end = sizes.offsets()
    width, tokens, sources, positions, slots, starts, lengths, members, tile_members, tile_offsets, rows = (
        flat[at : at + length] for at, length in places
    )
    contexts = Contexts(starts, lengths, flat[end:], width)
    tiles = tile_members, tile_offsets
    return StepInputs(tokens, sources, positions, slots, contexts, members, tiles, None if all_logits else rows)
