"""One choice of one request, as the scheduler sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.core.blocks import BlockHash


@dataclass(slots=True, eq=False)
class Sequence:
    """A run of tokens that grows to at most `limit`.

    While it waits, `tokens` holds all of its tokens; while it runs they live in the slot table and `slot` says where.
    `owner`, `index` and `request_row` are the engine's and are only carried here: whose choice this is, which of its
    choices, and the row of the engine's own tables that it keeps from admission to end.
    """

    tokens: NDArray[np.int32]
    prompt_length: int
    limit: int
    root: BlockHash
    tenant: str = "default"
    priority: int = 0
    adapter_slot: int = 0
    ignore_eos: bool = False
    # Further choices of the same prompt; they fork off this one once the prompt but for its last token is in KV memory.
    siblings: list[Sequence] = field(default_factory=list)
    owner: Any = None
    index: int = 0
    request_row: int = -1

    # The scheduler's own.
    arrival: int = -1
    slot: int = -1
    blocks: list[int] = field(default_factory=list)
    hashes: list[BlockHash] = field(default_factory=list)
    cached_tokens: int = 0
    preemptions: int = 0
    # Estimated seconds that were spent on reading its prompt.
    attained_s: float = 0.0
    cancelled: bool = False
