"""What the engine loop asks of whatever runs the network: one forward step over a flat batch, on paged KV memory.

The loop owns the scheduling: which blocks a sequence holds, which tokens run in a step, what is drawn from the logits.
The runner owns the weights, the KV memory and the arithmetic. Nothing here knows of requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

BLOCK_SIZE = 16


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a loaded model is. `revision` is the SHA-256 of its weight files: other weights, other revision."""

    name: str
    revision: str
    architecture: str
    layers: int
    vocab_size: int
    context_length: int
    eos_ids: tuple[int, ...]
    # Bytes that one token's keys and values take over all layers.
    kv_bytes_per_token: int
    # How the weights are held: "float32", "bfloat16", "int8", "int4".
    precision: str
    device: str


@dataclass(slots=True)
class StepBatch:
    """One forward step over a flat batch of S sequences with T tokens in all.

    Token t of sequence s attends to that sequence's positions 0..positions[t], which the step's own keys and values
    are part of. Position p lives in slot p % 16 of block block_tables[s, p // 16]; running a position again overwrites
    it, so a rejected draft needs no clean-up.
    """

    token_ids: NDArray[np.int32]  # [T]
    positions: NDArray[np.int32]  # [T]
    query_starts: NDArray[np.int32]  # [S+1]; sequence s owns rows query_starts[s]:query_starts[s+1]
    context_lens: NDArray[np.int32]  # [S]; tokens in KV memory after this step, this step's included
    block_tables: NDArray[np.int32]  # [S, B]; physical block ids, padded with -1
    logits_rows: NDArray[np.int32]  # [R]; flat rows whose logits are wanted
    adapter_ids: NDArray[np.int32]  # [S]; slot of `load_adapter`, 0 = none


@dataclass(frozen=True, slots=True)
class LogitsSummary:
    """One pass over rows of logits; every field has R entries. Natural logarithms.

    What a mask rules out changes `best` and `best_logprob`, and nothing else: the rest is the model's own distribution.
    """

    best: torch.Tensor  # int64: the largest logit's token among those allowed, the first of equals; 0 if none is
    best_logprob: torch.Tensor  # float32: that token's
    margin: torch.Tensor  # float32: log probability of the largest logit less that of the second largest
    entropy: torch.Tensor  # float32, nats
    logsumexp: torch.Tensor  # float32: logit - logsumexp is a token's log probability


@dataclass(frozen=True, slots=True)
class Candidates:
    """The best tokens of rows to draw from: the K largest of each, largest first."""

    values: torch.Tensor  # float32 [D, K]: logit over temperature; minus infinity behind the last one allowed
    tokens: torch.Tensor  # int64 [D, K]
    logsumexp: torch.Tensor  # float32 [D]: of all that is allowed, not of the K alone


class ModelRunner(Protocol):
    """A loaded model with its KV memory. Calls come from one thread at a time; `forward` releases the GIL."""

    @property
    def spec(self) -> ModelSpec:
        """What is loaded."""
        ...

    @property
    def block_size(self) -> int:
        """Tokens a block holds."""
        ...

    @property
    def num_blocks(self) -> int:
        """Blocks of KV memory; their ids are 0 to num_blocks - 1."""
        ...

    def forward(self, batch: StepBatch) -> torch.Tensor:
        """Run the step; float32 logits [R, vocab] in the order of `logits_rows`.

        The tensor is the caller's to change, and is valid until the next call.
        """
        ...

    def summarize(self, logits: torch.Tensor, allowed: torch.Tensor | None = None) -> LogitsSummary:
        """Greedy choice and confidence of each row of `logits` [R, vocab], float32, in one pass.

        `allowed`, int32 [R, ceil(vocab / 32)] on the device of the logits, is a mask: bit t % 32 of word t // 32 says
        whether token t may come. None: every token may.
        """
        ...

    def candidates(
        self,
        logits: torch.Tensor,
        rows: torch.Tensor,
        temperature: torch.Tensor,
        count: int,
        allowed: torch.Tensor | None = None,
    ) -> Candidates:
        """The `count` best tokens of D rows of `logits`, at a temperature for each: float32 [D], for int64 rows [D].

        `allowed` as in `summarize`: a row for each of `logits`. Changes nothing.
        """
        ...

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """Copy the keys and values of block src to block dst, for each (src, dst), in all layers."""
        ...

    def load_adapter(self, path: Path) -> int:
        """Load a PEFT LoRA folder; the slot id, 1 or more. Raises ModelError when it does not fit the model."""
        ...

    def unload_adapter(self, slot: int) -> None:
        """Free a slot. No running sequence may name it any more. Raises KeyError for an unknown slot."""
        ...

    def close(self) -> None:
        """Free weights and KV memory. May be called twice."""
        ...
