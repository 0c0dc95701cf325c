"""Decode steps as CUDA graphs: one for each of a few batch sizes, replayed on static memory.

A step of one token for each sequence is some hundred kernels of a few microseconds each; launching them one by one
would take the host longer than the device needs to run them. A smaller batch runs in the next larger graph: its padding
rows have no context and write to a scrap page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from inference.adapters.torch.runner_api import LogitsSummary, StepBatch

from .inputs import Ints, Sizes, join, view, write_slots
from .kernels.summary import summarize
from .memory import DevicePages
from .network import Network
from .transfer import pinned

BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128)


class DecodeGraph:
    """The step at one batch size: its input memory, and where its results appear."""

    def __init__(self, rows: int, network: Network, memory: DevicePages, drawn: torch.Tensor, max_blocks: int) -> None:
        self.rows = rows
        self.logits = self.best = torch.empty(0)
        self.summary: LogitsSummary | None = None
        self._network, self._memory, self._drawn = network, memory, drawn
        self._sizes = Sizes(tokens=rows, sequences=rows, singles=rows, tiles=0, logits=0)
        end = self._sizes.offsets()[1]
        self._static = torch.zeros(end + rows * max_blocks, dtype=torch.int32, device=network.device)
        self._step = view(self._static, self._sizes, all_logits=True)
        self._replay: Callable[[], None] = self._run

    def capture(self, pool: Any) -> None:
        """Record the step. Its intermediate memory comes from `pool`, which graphs share: one runs at a time."""
        self._padding()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            # Compiles kernels and sets up libraries, neither of which a capture allows.
            for _ in range(2):
                self._run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            self._run()
        self._replay = graph.replay

    def run(self, batch: StepBatch, sources: Ints) -> tuple[torch.Tensor, LogitsSummary]:
        """Logits and summary of a batch of single tokens, at most `rows`; valid until any graph runs again."""
        self._fill(batch, sources)
        self._replay()
        assert self.summary is not None  # `_run` has set it, be it while the graph was recorded
        count, s = len(batch.token_ids), self.summary
        part = LogitsSummary(
            s.best[:count], s.best_logprob[:count], s.margin[:count], s.entropy[:count], s.logsumexp[:count]
        )
        return self.logits[:count], part

    def _run(self) -> None:
        with torch.no_grad():
            self.logits = self._network.forward(self._step, self._drawn, self._memory)
            self.summary = summarize(self.logits)
            self._drawn[: self.rows].copy_(self.summary.best)

    def _padding(self) -> None:
        empty = np.zeros(0, np.int32)
        none = StepBatch(empty, empty, np.zeros(1, np.int32), empty, np.zeros((0, 1), np.int32), empty, empty)
        self._fill(none, empty)

    def _fill(self, batch: StepBatch, sources: Ints) -> None:
        rows, count = self.rows, len(batch.token_ids)

        def padded(values: Ints, padding: int) -> Ints:
            column = np.full(rows, padding, np.int32)
            column[:count] = values
            return column

        sequence = np.arange(rows + 1, dtype=np.int32)
        fields = [
            np.array([batch.block_tables.shape[1]]),
            padded(batch.token_ids, 0),
            padded(sources, -1),
            padded(batch.positions, 0),
            padded(write_slots(batch, np.ones(count, np.int32)), self._memory.scrap_slot),
            sequence,
            padded(batch.context_lens, 0),
            sequence[:-1],
            *([np.zeros(0, np.int32)] * 3),
        ]
        flat = join(fields, batch.block_tables, self._sizes)
        self._static[: len(flat)].copy_(pinned(flat, self._network.device), non_blocking=True)


class DecodeGraphs:
    """A graph for each of BUCKETS up to `most` rows."""

    def __init__(
        self, network: Network, memory: DevicePages, drawn: torch.Tensor, max_blocks: int, maximum: int
    ) -> None:
        self._graphs = {
            rows: DecodeGraph(rows, network, memory, drawn, max_blocks) for rows in BUCKETS if rows <= maximum
        }

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch sizes that there are graphs for, ascending."""
        return tuple(self._graphs)

    def capture(self) -> None:
        """Record them all, the largest first, so that the others find room in its memory."""
        pool = torch.cuda.graph_pool_handle()
        for graph in reversed(self._graphs.values()):
            graph.capture(pool)

    def fitting(self, rows: int) -> DecodeGraph | None:
        """The smallest graph with room for `rows`."""
        return next((graph for size, graph in self._graphs.items() if size >= rows), None)

    def clear(self) -> None:
        """Free them."""
        self._graphs.clear()
