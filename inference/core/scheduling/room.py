"""Who may start in what room there is, and who gives room back.

A share of slots and blocks is kept for small sequences, so that long prompts that hold all the rest never keep a
short one waiting. While a long one waits for room, others take only from that share: what ends leaves its room to the
one that waits.
"""

from __future__ import annotations

from collections.abc import Iterable

from inference.core.blocks import BlockPool
from inference.core.scheduling.sequence import Sequence

# Small are sequences of up to this share of all blocks. What is kept for them, of blocks and of slots.
SMALL, KEPT = 1 / 32, 1 / 8
# Share of the blocks that must stay available when a sequence is started beside others, for those to grow into.
WATERMARK = 0.01
# By how much each preemption makes the next less likely: what a tenant holds counts for so much less.
SPARED = 4


class Room:
    """Used on the engine's thread only."""

    def __init__(self, pool: BlockPool, slots: int) -> None:
        self._pool = pool
        self._small = int(pool.num_blocks * SMALL) * pool.block_size
        self._watermark = int(pool.num_blocks * WATERMARK)
        # Nothing is kept where no sequence is small.
        self._kept_blocks = int(pool.num_blocks * KEPT) if self._small else 0
        self._long_slots = slots - int(slots * KEPT) if self._small else slots
        # What did not fit of late, and how much was available: it need not be looked at again before that grows.
        self._refused: tuple[Sequence, int] | None = None

    def small(self, seq: Sequence) -> bool:
        """Whether `seq` may take from what is kept."""
        tokens = len(seq.tokens) if seq.slot < 0 else len(seq.blocks) * self._pool.block_size
        return tokens <= self._small

    def worth_trying(self, seq: Sequence, running: list[Sequence]) -> bool:
        """Whether `seq` might fit; what it takes is not known yet."""
        if self._refused is not None and self._refused[0] is seq and self._pool.available <= self._refused[1]:
            return False
        if self.small(seq) or not running:
            return True
        return sum(not self.small(other) for other in running) < self._long_slots

    def fits(self, seq: Sequence, fresh: int, running: list[Sequence], *, waits: bool) -> bool:
        """Whether `seq` may take `fresh` blocks beside those that run, where a more deserving one `waits` for room."""
        available = self._pool.available
        if not running:
            fits = fresh <= available
        else:
            held = sum(len(other.blocks) for other in running if self.small(other))
            if self.small(seq):
                fits = fresh + self._watermark <= available and (not waits or held + fresh <= self._kept_blocks)
            else:
                fits = fresh + max(self._watermark, self._kept_blocks - held) <= available
        if not fits and not waits:
            self._refused = (seq, available)
        return fits


def victim(running: Iterable[Sequence]) -> Sequence | None:
    """Who gives its room back: of the lowest priority, of the tenant that holds most, the latest.

    Every preemption spares a sequence later ones: none is preempted again and again while others run on. A sequence
    keeps what it has drawn, and room is taken for tokens that were drawn alone, so that preempting comes to an end.
    """
    held: dict[str, int] = {}
    for seq in running:
        held[seq.tenant] = held.get(seq.tenant, 0) + len(seq.blocks)
    return max(
        running,
        key=lambda seq: (-seq.priority, held[seq.tenant] / SPARED**seq.preemptions, seq.arrival),
        default=None,
    )
