"""One admitted request on its way through the engine's thread."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inference.core.blocks import BlockPool
from inference.core.generation_state import Progress, Stage
from inference.core.port import EngineRequest, EngineSummary
from inference.core.scheduling.sequence import Sequence
from inference.core.scheduling.table import SlotTable

from .event_queue import EventQueue


@dataclass(slots=True, eq=False)
class Generation:
    """Times are seconds of one clock. Made on the event loop, then the engine thread's alone."""

    request: EngineRequest
    event_queue: EventQueue
    submitted_at: float
    # A compiled grammar, and the runner's slot of the request's adapter.
    grammar: Any = None
    adapter_slot: int = 0
    # Whether the engine's thread has been told of it.
    handed_over: bool = False
    seed: int = 0
    sequences: list[Sequence] = field(default_factory=list)
    started_at: float = 0.0
    first_token_at: float = 0.0
    unfinished: int = 0
    # Tokens drawn here, by choice.
    drawn: list[int] = field(default_factory=list)
    # Choices of which nothing more is wanted.
    unwanted: set[int] = field(default_factory=set)
    drafted: int = 0
    accepted: int = 0

    def emitted(self, index: int) -> tuple[int, ...]:
        """What choice `index` has emitted elsewhere."""
        return self.request.emitted[index] if self.request.emitted else ()

    def gained(self, index: int) -> int:
        """How many tokens choice `index` has drawn here."""
        return self.drawn[index] if self.drawn else 0

    def count(self, index: int) -> None:
        """Book a token of choice `index`."""
        self.drawn[index] += 1

    def split(self, pool: BlockPool, context_length: int) -> list[Sequence]:
        """Make the request's sequences; all but the first are its siblings, to fork off it."""
        request = self.request
        prompt = len(request.prompt)
        seed = request.sampling.seed
        self.seed = secrets.randbits(64) if seed is None else seed & (2**64 - 1)
        root = pool.root(request.tenant, f"{self.adapter_slot}:{request.adapter or ''}")
        self.sequences = [
            Sequence(
                tokens=np.array(request.prompt + self.emitted(index), np.int32),
                prompt_length=prompt,
                limit=min(prompt + request.sampling.max_tokens, context_length),
                root=root,
                tenant=request.tenant,
                priority=request.priority,
                adapter_slot=self.adapter_slot,
                # A grammar's end is the answer's end.
                ignore_eos=request.sampling.ignore_eos and request.sampling.constraint is None,
                owner=self,
                index=index,
            )
            for index in range(request.n)
        ]
        self.unfinished = request.n
        self.drawn = [0] * request.n
        return self.sequences

    def progress(self, table: SlotTable) -> Progress:
        """How far it is before its first token. From any thread."""
        slot = self.sequences[0].slot if self.sequences else -1
        if slot < 0:
            return Progress(Stage.QUEUED)
        return Progress(Stage.PREFILL, min(1.0, float(table.computed[slot]) / len(self.request.prompt)))

    def summary(self, now: float) -> EngineSummary:
        """The generation's account at its end."""
        started = self.started_at or now
        first = self.first_token_at or now
        return EngineSummary(
            prompt_tokens=len(self.request.prompt),
            completion_tokens=sum(self.drawn),
            cached_tokens=self.sequences[0].cached_tokens,
            queue_s=started - self.submitted_at,
            prefill_s=first - started,
            decode_s=now - first,
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
        )
