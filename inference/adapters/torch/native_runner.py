"""The model runner on the native CPU kernels: one call a step, weights in 4, 8 or 16 bits, KV in 8 or 16."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inference.core.sizing import kv_bytes
from inference.native import library as native

from .loading import Checkpoint
from .lora import read_adapter
from .native_model import NativeModel, fill, fill_adapter
from .runner_api import BLOCK_SIZE, Candidates, LogitsSummary, ModelSpec, StepBatch


def as_native(batch: StepBatch) -> tuple[native.Batch, list[NDArray[np.int32]]]:
    """The step as the kernels take it, and the arrays that it points into."""
    names = ("token_ids", "positions", "query_starts", "block_tables", "logits_rows", "adapter_ids")
    arrays = [np.ascontiguousarray(getattr(batch, name), dtype=np.int32) for name in names]
    tokens, sequences, rows = len(batch.token_ids), len(batch.query_starts) - 1, len(batch.logits_rows)
    shape = (tokens, sequences, batch.block_tables.shape[1], rows)
    return native.Batch(*shape, *(array.ctypes.data for array in arrays)), arrays


class NativeRunner:
    """See ModelRunner. A row's logits are the same bits whatever runs beside it and however its prompt was chunked."""

    def __init__(
        self,
        library: ctypes.CDLL,
        checkpoint: Checkpoint,
        precision: str,
        num_blocks: int,
        threads: int,
        *,
        kv_precision: str = "auto",
        kernels: str = "auto",
    ) -> None:
        self._config = config = checkpoint.config
        kept = "int8" if kv_precision == "int8" else "float16"
        self._model = NativeModel(library, config, num_blocks, threads, kept, kernels=kernels)
        self.kernels = self._model.kernels
        self._slots: set[int] = set()
        self._next_slot = 1
        self._logits = torch.empty(0)
        self.block_size = BLOCK_SIZE
        self.num_blocks = num_blocks
        self.spec = ModelSpec(
            name=config.name,
            revision=checkpoint.revision,
            architecture=config.architecture,
            layers=config.layers,
            vocab_size=config.vocab_size,
            context_length=config.context_length,
            eos_ids=config.eos_ids,
            kv_bytes_per_token=kv_bytes(config.kv_values_per_token(), config.head_dim, kept),
            precision=fill(self._model, checkpoint, precision),
            device="cpu",
        )

    def forward(self, batch: StepBatch) -> torch.Tensor:
        """See ModelRunner.forward."""
        passed, _arrays = as_native(batch)
        logits = self._room(len(batch.logits_rows))
        self._model.call("hr_forward", ctypes.byref(passed), logits.data_ptr())
        return logits

    def _room(self, rows: int) -> torch.Tensor:
        """Memory for logits, kept between steps: fresh pages cost more than the arithmetic at large vocabularies."""
        if len(self._logits) < rows:
            self._logits = torch.empty(rows, self._config.vocab_size)
        return self._logits[:rows]

    def summarize(self, logits: torch.Tensor, allowed: torch.Tensor | None = None) -> LogitsSummary:
        """See ModelRunner.summarize."""
        logits = logits.contiguous()
        rows = len(logits)
        best, floats = torch.empty(rows, dtype=torch.int64), torch.empty(4, rows)
        to = native.Summary(best.data_ptr(), *(floats.data_ptr() + 4 * rows * i for i in range(4)))
        self._model.call("hr_summarize", _masked(logits, allowed), rows, ctypes.byref(to))
        return LogitsSummary(best, *floats)

    def candidates(
        self,
        logits: torch.Tensor,
        rows: torch.Tensor,
        temperature: torch.Tensor,
        count: int,
        allowed: torch.Tensor | None = None,
    ) -> Candidates:
        """See ModelRunner.candidates."""
        logits = logits.contiguous()
        drawn = len(rows)
        values, logsumexp = torch.empty(drawn, count), torch.empty(drawn)
        tokens = torch.empty(drawn, count, dtype=torch.int64)
        to = native.Candidates(values.data_ptr(), tokens.data_ptr(), logsumexp.data_ptr())
        places = rows.data_ptr(), temperature.data_ptr(), drawn, count
        self._model.call("hr_candidates", _masked(logits, allowed), *places, ctypes.byref(to))
        return Candidates(values, tokens, logsumexp)

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """See ModelRunner.copy_blocks."""
        for source, target in pairs:
            self._model.call("hr_copy_block", source, target)

    def load_adapter(self, path: Path) -> int:
        """See ModelRunner.load_adapter."""
        adapter = read_adapter(path, self._config)
        slot, self._next_slot = self._next_slot, self._next_slot + 1
        fill_adapter(self._model, slot, adapter)
        self._slots.add(slot)
        return slot

    def unload_adapter(self, slot: int) -> None:
        """See ModelRunner.unload_adapter."""
        self._slots.remove(slot)
        self._model.call("hr_adapter_remove", slot)

    def close(self) -> None:
        """See ModelRunner.close."""
        self._model.close()


def _masked(logits: torch.Tensor, allowed: torch.Tensor | None) -> ctypes._Pointer[native.Logits]:
    """The kernels' view of both, which must be contiguous and outlive the call."""
    words = None if allowed is None else allowed.data_ptr()
    return ctypes.pointer(native.Logits(logits.data_ptr(), words, logits.shape[1]))
