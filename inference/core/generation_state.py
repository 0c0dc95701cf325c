"""What a node and its engine tell each other of one generation while it runs, beside its events."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class Stage(enum.Enum):
    """Where a generation is that has not produced anything yet."""

    QUEUED = "queued"
    PREFILL = "prefill"


@dataclass(frozen=True, slots=True)
class Progress:
    """A stage, and the share of the prompt that has been read, 0 to 1."""

    stage: Stage
    read: float = 0.0


class GenerationState:
    """Used on the event loop. An engine that attaches nothing has its choices drawn to their ends and says nothing."""

    def __init__(self) -> None:
        self.unwanted: set[int] = set()
        self._end_choice: Callable[[int], None] | None = None
        self._progress: Callable[[], Progress | None] | None = None

    def attach(
        self,
        *,
        end_choice: Callable[[int], None] | None = None,
        progress: Callable[[], Progress | None] | None = None,
    ) -> None:
        """For the engine, before it gives its first event.

        `end_choice` stops drawing a choice and frees what it holds; no event need come of it any more. `progress` says
        how far the generation is, or None where it does not wait or the engine gave no sign of life since it was asked
        last: waiting for one that stands still is not waiting.
        """
        if end_choice is not None:
            self._end_choice = end_choice
            for index in self.unwanted:
                end_choice(index)
        if progress is not None:
            self._progress = progress

    def end_choice(self, index: int) -> None:
        """For the node: what else choice `index` would give is of no use. Callable twice."""
        if index not in self.unwanted:
            self.unwanted.add(index)
            if self._end_choice is not None:
                self._end_choice(index)

    def progress(self) -> Progress | None:
        """For the node, before the first event: see `attach`."""
        return self._progress() if self._progress is not None else None


class SignsOfLife:
    """Tells whether a count has moved since it was looked at last; the first look counts as a move."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._last: int | None = None

    def moved(self) -> bool:
        """Whether it has."""
        last, self._last = self._last, self._count()
        return last != self._last
