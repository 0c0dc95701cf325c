"""How a step's time is shared between the prompts that are being read.

Between tenants, the one that was served least goes next and takes what it wants of the time that is left: a step
reads one long prompt, and every short one that is due, so that the keys and values of long ones are not read over and
over. Within a tenant, the oldest prompt and the one that got least so far take turns: an old one is always read on,
and a short one waits behind no long one. All in estimated seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Listing
from dataclasses import dataclass

from inference.core.scheduling.cost import StepCost
from inference.core.scheduling.sequence import Sequence
from inference.core.scheduling.shares import TenantShares

# Tokens that a step reads at least where prompts wait, and below which no further prompt is begun in one.
SMALLEST_CHUNK = 16


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt with `wanted` tokens to read behind `computed`."""

    seq: Sequence
    computed: int
    wanted: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a step reads of the prompt at `place` in the list that was given."""

    place: int
    tokens: int


class PromptSharing:
    """Used on the engine's thread only."""

    def __init__(self, cost: StepCost, shares: TenantShares) -> None:
        self._cost = cost
        self._shares = shares
        # Whose turn it is within each tenant: the oldest's where True.
        self._oldest_next: dict[str, bool] = {}

    def share(self, prompts: Listing[Prompt], seconds: float, tokens: int) -> list[Chunk]:
        """Chunks within so many seconds and tokens; where the seconds are too few, one of SMALLEST_CHUNK."""
        chunks: list[Chunk] = []
        for priority in sorted({prompt.seq.priority for prompt in prompts}, reverse=True):
            queues = self._queues(prompts, priority)
            while queues and tokens > 0:
                tenant = min(queues, key=lambda name: (self._shares.of(name), *queues[name].least_attained))
                place = queues[tenant].take(self._turn(tenant))
                if not queues[tenant]:
                    del queues[tenant]
                prompt = prompts[place]
                count = min(prompt.wanted, tokens, self._cost.fitting(prompt.computed, seconds))
                if count < min(prompt.wanted, SMALLEST_CHUNK):
                    if chunks:
                        return chunks
                    count = min(prompt.wanted, tokens, SMALLEST_CHUNK)
                took = self._cost.chunk(prompt.computed, count)
                prompt.seq.attained_s += took
                self._shares.charge(tenant, took)
                chunks.append(Chunk(place, count))
                seconds, tokens = seconds - took, tokens - count
        return chunks

    def _queues(self, prompts: Listing[Prompt], priority: int) -> dict[str, _Queue]:
        tenants: dict[str, list[int]] = {}
        for place, prompt in enumerate(prompts):
            if prompt.seq.priority == priority:
                tenants.setdefault(prompt.seq.tenant, []).append(place)
        return {tenant: _Queue(prompts, places) for tenant, places in tenants.items()}

    def _turn(self, tenant: str) -> bool:
        turn = self._oldest_next.pop(tenant, False)
        self._oldest_next[tenant] = not turn
        if len(self._oldest_next) > 1024:
            del self._oldest_next[next(iter(self._oldest_next))]
        return turn


class _Queue:
    """One tenant's prompts, by age and by what they got."""

    def __init__(self, prompts: Listing[Prompt], places: list[int]) -> None:
        self._prompts = prompts
        self._left = set(places)
        self._by_age = deque(sorted(places, key=lambda place: prompts[place].seq.arrival))
        self._by_attained = deque(sorted(places, key=self._attained))

    def __len__(self) -> int:
        return len(self._left)

    @property
    def least_attained(self) -> tuple[float, int]:
        """Sorts queues of equally served tenants."""
        return self._attained(self._next(self._by_attained))

    def take(self, oldest: bool) -> int:
        """The place of the oldest prompt, or else of the one that got least."""
        place = self._next(self._by_age if oldest else self._by_attained)
        self._left.discard(place)
        return place

    def _next(self, places: deque[int]) -> int:
        while places[0] not in self._left:
            places.popleft()
        return places[0]

    def _attained(self, place: int) -> tuple[float, int]:
        seq = self._prompts[place].seq
        return seq.attained_s, seq.arrival
