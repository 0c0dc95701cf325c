"""The model runner for CUDA devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from inference.adapters.torch.loading import Checkpoint
from inference.adapters.torch.logits import best_of, candidates
from inference.adapters.torch.lora import Lora, LoraPair, read_adapter
from inference.adapters.torch.network import StepAdapters
from inference.adapters.torch.runner_api import BLOCK_SIZE, Candidates, LogitsSummary, ModelSpec, StepBatch
from inference.adapters.torch.sampling import Filters

from .graphs import DecodeGraphs
from .inputs import Ints, pack, view
from .kernels.draws import draw_rows
from .kernels.prefill_attention import TILE
from .kernels.summary import summarize
from .launching import Launched
from .memory import DevicePages
from .network import Network
from .rows import FLOAT8
from .transfer import to_device
from .tuning import tune

# Rows whose drawn tokens one step can leave to the next.
_MAX_DRAWN = 4096


class CudaRunner:
    """See ModelRunner. On a device without CUDA it runs too, under Triton's interpreter: that is how it is tested.

    `precision` is one of weights.PRECISIONS; `dtype`, where given, is what quantized weights compute in.

    Steps of single tokens replay CUDA graphs; steps with prompts in them, or with adapters, are launched kernel by
    kernel. The result of a row may differ in rounding from one batch size to another, as cuBLAS's kernels do.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        precision: str,
        num_blocks: int,
        *,
        kv_precision: str = "auto",
        graph_rows: int = 128,
        dtype: torch.dtype | None = None,
    ) -> None:
        config = checkpoint.config
        if device.type == "cuda":
            # Kernels are launched on the thread's current device, wherever their arguments lie.
            torch.cuda.set_device(device)
        self._device = device
        self._network = Network(checkpoint, device, precision, dtype)
        kv_dtype = FLOAT8 if kv_precision == "fp8" else self._network.dtype
        self.block_size = BLOCK_SIZE
        self.num_blocks = num_blocks
        self.max_drawn = _MAX_DRAWN
        self.spec = ModelSpec(
            name=config.name,
            revision=checkpoint.revision,
            architecture=config.architecture,
            layers=config.layers,
            vocab_size=config.vocab_size,
            context_length=config.context_length,
            eos_ids=config.eos_ids,
            kv_bytes_per_token=config.kv_values_per_token() * kv_dtype.itemsize,
            precision=self._network.precision,
            device=device.type,
        )
        self._memory = DevicePages(config, num_blocks, kv_dtype, device)
        self._drawn = torch.zeros(_MAX_DRAWN, dtype=torch.int64, device=device)
        self._adapters: dict[int, Lora] = {}
        self._next_slot = 1
        max_blocks = min(num_blocks, -(-config.context_length // BLOCK_SIZE))
        self._graphs = DecodeGraphs(self._network, self._memory, self._drawn, max_blocks, graph_rows)
        if device.type == "cuda":
            tune(self._network.products(), self._network.choices, self._graphs.sizes, device)
            self._graphs.capture()
            self.warm()

    def warm(self) -> None:
        """Run a prompt beside an answer on the scrap page, so that no request waits for a kernel to be compiled."""
        lengths = [min(TILE + 1, self._network.config.context_length), 1]
        starts = np.cumsum([0, *lengths]).astype(np.int32)
        positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
        tables = np.full((2, -(-lengths[0] // BLOCK_SIZE)), self.num_blocks, np.int32)
        tokens, none = np.zeros_like(positions), np.zeros(2, np.int32)
        batch = StepBatch(tokens, positions, starts, np.array(lengths, np.int32), tables, starts[1:] - 1, none)
        launched = self.launch(batch, np.full(len(tokens), -1, np.int32))
        rows, ones = none.astype(np.int64), torch.ones(2, device=self._device)
        filters = Filters(ones, ones.int(), ones, ones)
        self.draw_rows(launched.logits, torch.from_numpy(rows).to(self._device), filters, ones.double() / 2)

    def forward(self, batch: StepBatch) -> torch.Tensor:
        """See ModelRunner.forward."""
        return self._step(batch, np.full(len(batch.token_ids), -1, np.int32))[0]

    def launch(self, batch: StepBatch, sources: Ints) -> Launched:
        """See LaunchingRunner.launch."""
        logits, summary = self._step(batch, sources)
        drawn = self._drawn[: len(logits)]
        if summary is None:
            summary = summarize(logits)
            drawn.copy_(summary.best)
        return Launched(logits, summary, drawn)

    def draw_rows(
        self, logits: torch.Tensor, rows: torch.Tensor, filters: Filters, chance: torch.Tensor
    ) -> torch.Tensor:
        """See LaunchingRunner.draw_rows."""
        return draw_rows(logits, rows, filters, chance)

    def summarize(self, logits: torch.Tensor, allowed: torch.Tensor | None = None) -> LogitsSummary:
        """See ModelRunner.summarize."""
        whole = summarize(logits.contiguous())
        if allowed is None:
            return whole
        best = best_of(logits, allowed)
        return replace(whole, best=best, best_logprob=logits.gather(1, best[:, None])[:, 0] - whole.logsumexp)

    def candidates(
        self,
        logits: torch.Tensor,
        rows: torch.Tensor,
        temperature: torch.Tensor,
        count: int,
        allowed: torch.Tensor | None = None,
    ) -> Candidates:
        """See ModelRunner.candidates."""
        return candidates(
            logits, rows, temperature, count, allowed, logsumexp=lambda tempered: summarize(tempered).logsumexp
        )

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """See ModelRunner.copy_blocks."""
        self._memory.copy_blocks(pairs)

    def load_adapter(self, path: Path) -> int:
        """See ModelRunner.load_adapter."""
        adapter = read_adapter(path, self._network.config)
        slot, self._next_slot = self._next_slot, self._next_slot + 1
        self._adapters[slot] = {
            place: LoraPair(pair.down.to(self._device), pair.up.to(self._device)) for place, pair in adapter.items()
        }
        return slot

    def unload_adapter(self, slot: int) -> None:
        """See ModelRunner.unload_adapter."""
        del self._adapters[slot]

    def close(self) -> None:
        """See ModelRunner.close. Memory goes back when the runner does."""
        self._adapters.clear()
        self._graphs.clear()

    def _step(self, batch: StepBatch, sources: Ints) -> tuple[torch.Tensor, LogitsSummary | None]:
        """Logits and, where a graph made one, their summary."""
        rows = len(batch.token_ids)
        adapted = bool(batch.adapter_ids.any())
        graph = None if adapted or rows != len(batch.context_lens) else self._graphs.fitting(rows)
        if graph is not None and len(batch.logits_rows) == rows:
            return graph.run(batch, sources)
        flat, sizes = pack(batch, sources)
        step = view(to_device(flat, self._device), sizes, all_logits=False)
        adapters = StepAdapters(batch, self._adapters, self._device) if adapted else None
        return self._network.forward(step, self._drawn, self._memory, adapters), None
