"""Paged KV memory: who holds which block, and which blocks can be shared.

KV memory is cut into blocks of `block_size` positions, as in PagedAttention (Kwon et al., SOSP 2023). A block is in
exactly one of three states:

- held: one or more sequences count on it;
- cached: nobody holds it, but its content is known by hash and can be taken up again; the least recently used is
  evicted first;
- free.

Full blocks are found by a chained hash over every token before and in them, so equal hash means equal content. The
chain starts from a salt per tenant and adapter under a key that is drawn for each process: one tenant can neither hit
nor time what another has cached.

No thread safety: the engine's thread owns it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BlockHash = bytes


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """Blocks by state, and how often a lookup found what it wanted, since the start."""

    total: int
    held: int
    cached: int
    hit_blocks: int
    missed_blocks: int
    evicted_blocks: int


class OutOfBlocksError(Exception):
    """Fewer blocks are free than were asked for; nothing was taken."""


class BlockPool:
    """Allocation, sharing and eviction of `num_blocks` blocks."""

    def __init__(self, num_blocks: int, block_size: int, *, share_prefixes: bool = True) -> None:
        if num_blocks < 1 or block_size < 1:
            raise ValueError(f"num_blocks and block_size must be positive, not {num_blocks} and {block_size}")
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._share = share_prefixes
        self._key = secrets.token_bytes(32)
        self._refs = [0] * num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._hash_of: dict[int, BlockHash] = {}
        self._block_of: dict[BlockHash, int] = {}
        self._hits = self._misses = self._evictions = 0

    @property
    def available(self) -> int:
        """Blocks that `allocate` could hand out now: the free ones and the cached ones."""
        return len(self._free) + len(self._cached)

    @property
    def held(self) -> int:
        """Blocks that sequences count on, each counted once."""
        return self.num_blocks - self.available

    def counts(self) -> PoolCounts:
        """The pool's state for metrics."""
        return PoolCounts(self.num_blocks, self.held, len(self._cached), self._hits, self._misses, self._evictions)

    def references(self, block: int) -> int:
        """How many sequences hold `block`."""
        return self._refs[block]

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks of unknown content, evicting the least recently used cached ones if need be.

        Raises OutOfBlocksError, having taken none.
        """
        if count > self.available:
            raise OutOfBlocksError(f"{count} blocks wanted, {self.available} available")
        taken = []
        for _ in range(count):
            if self._free:
                block = self._free.pop()
            else:
                block, _none = self._cached.popitem(last=False)
                del self._block_of[self._hash_of.pop(block)]
                self._evictions += 1
            self._refs[block] = 1
            taken.append(block)
        return taken

    def share(self, blocks: Iterable[int]) -> None:
        """Hold each of `blocks` once more; a cached one becomes held again."""
        for block in blocks:
            if self._refs[block] == 0:
                del self._cached[block]
            self._refs[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """Hold each of `blocks` once less. What nobody holds any more is cached when its content is known, else free.

        Later blocks of a sequence go first, so that eviction eats a prefix from its end.
        """
        for block in reversed(blocks):
            self._refs[block] -= 1
            if self._refs[block] > 0:
                continue
            if block in self._hash_of:
                self._cached[block] = None
            else:
                self._free.append(block)

    def root(self, tenant: str, adapter: str) -> BlockHash:
        """The hash that a chain of this tenant and adapter starts from."""
        return self._digest(b"root", f"{len(tenant)}:{tenant}:{adapter}".encode())

    def extend(self, parent: BlockHash, tokens: NDArray[np.int32]) -> BlockHash:
        """The hash of a full block that holds `tokens` and follows the block `parent`."""
        return self._digest(parent, tokens.tobytes())

    def match(self, root: BlockHash, tokens: NDArray[np.int32]) -> tuple[list[int], list[BlockHash]]:
        """The longest run of known blocks at the start of `tokens`, now held by the caller, and their hashes.

        At least the last token is left out, since something must be run to get logits.
        """
        blocks: list[int] = []
        hashes: list[BlockHash] = []
        if not self._share:
            return blocks, hashes
        size, parent = self.block_size, root
        wanted = (len(tokens) - 1) // size
        for i in range(wanted):
            parent = self.extend(parent, tokens[i * size : (i + 1) * size])
            block = self._block_of.get(parent)
            if block is None:
                break
            blocks.append(block)
            hashes.append(parent)
        self.share(blocks)
        self._hits += len(blocks)
        self._misses += wanted - len(blocks)
        return blocks, hashes

    def publish(self, block: int, content: BlockHash) -> None:
        """Make a full, held block findable by its hash. Of two with the same content the first stays the known one."""
        if self._share and content not in self._block_of and block not in self._hash_of:
            self._hash_of[block] = content
            self._block_of[content] = block

    def retract(self, blocks: Iterable[int]) -> None:
        """Make held blocks unknown again, whose content turned out not to be trusted."""
        for block in blocks:
            content = self._hash_of.pop(block, None)
            if content is not None:
                del self._block_of[content]

    def forget(self) -> None:
        """Drop all cached content, as after a failed step whose writes cannot be trusted."""
        self._free.extend(self._cached)
        self._cached.clear()
        self._hash_of.clear()
        self._block_of.clear()

    def _digest(self, parent: bytes, content: bytes) -> BlockHash:
        return hashlib.blake2b(parent + content, digest_size=16, key=self._key).digest()
