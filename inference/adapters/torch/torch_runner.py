"""The model runner in plain torch: float32 or bfloat16, CPU or CUDA."""

from __future__ import annotations

from pathlib import Path

import torch

from inference.core.sizing import kv_bytes

from . import logits as in_torch
from .int8_memory import Int8KV
from .loading import Checkpoint
from .lora import Lora, LoraPair, read_adapter
from .network import TorchNetwork
from .paged_attention import PagedKV
from .runner_api import BLOCK_SIZE, Candidates, LogitsSummary, ModelSpec, StepBatch


class TorchRunner:
    """See ModelRunner."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        num_blocks: int,
        *,
        kv_precision: str = "auto",
    ) -> None:
        config = checkpoint.config
        self._network = TorchNetwork(checkpoint, device, dtype)
        kept = "int8" if kv_precision == "int8" else str(dtype).removeprefix("torch.")
        self._memory = (Int8KV if kept == "int8" else PagedKV)(config, num_blocks, dtype, device)
        self._adapters: dict[int, Lora] = {}
        self._next_slot = 1
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
            precision=str(dtype).removeprefix("torch."),
            device=device.type,
        )

    def forward(self, batch: StepBatch) -> torch.Tensor:
        """See ModelRunner.forward."""
        return self._network.forward(batch, self._memory, self._adapters)

    def summarize(self, logits: torch.Tensor, allowed: torch.Tensor | None = None) -> LogitsSummary:
        """See ModelRunner.summarize."""
        return in_torch.summarize(logits, allowed)

    def candidates(
        self,
        logits: torch.Tensor,
        rows: torch.Tensor,
        temperature: torch.Tensor,
        count: int,
        allowed: torch.Tensor | None = None,
    ) -> Candidates:
        """See ModelRunner.candidates."""
        return in_torch.candidates(logits, rows, temperature, count, allowed)

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """See ModelRunner.copy_blocks."""
        self._memory.copy_blocks(pairs)

    def load_adapter(self, path: Path) -> int:
        """See ModelRunner.load_adapter."""
        device = self._network.device
        adapter = read_adapter(path, self._network.config)
        placed = {place: LoraPair(pair.down.to(device), pair.up.to(device)) for place, pair in adapter.items()}
        slot, self._next_slot = self._next_slot, self._next_slot + 1
        self._adapters[slot] = placed
        return slot

    def unload_adapter(self, slot: int) -> None:
        """See ModelRunner.unload_adapter."""
        del self._adapters[slot]

    def close(self) -> None:
        """See ModelRunner.close. Memory goes back when the runner does."""
        self._adapters.clear()
