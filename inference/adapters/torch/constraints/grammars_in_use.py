"""The grammars of the answers being written, and what they allow in a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.core.port import GenerationFailed, UnsupportedConstraint
from inference.core.scheduling.table import SlotTable

from ..batching import DrawnRows
from ..sampling_table import RequestRows

if TYPE_CHECKING:
    from .compiler import GrammarState


# A word of a mask that allows all of its tokens.
_EVERY = -1


@dataclass(frozen=True, slots=True)
class Mask:
    """`words` [R, ceil(vocab / 32)] is as ModelRunner.summarize takes it, and allows at least one token in each row."""

    words: torch.Tensor
    # [R]: whether the grammar allows no token there.
    empty: NDArray[np.bool_]
    # Rows whose grammar failed to say, with the reason.
    failed: dict[int, Exception]


class GrammarsInUse:
    """One state for each request row that has a grammar. Used on the engine's thread only."""

    def __init__(self, vocab_size: int) -> None:
        self._states: dict[int, GrammarState] = {}
        self._words = torch.empty((0, -(-vocab_size // 32)), dtype=torch.int32)
        # The bits of a row that stand for tokens.
        bits = np.arange(self._words.shape[1] * 32) < vocab_size
        self._inside = np.packbits(bits, bitorder="little").view(np.int32)

    def enter(self, request_row: int, grammar: Any, emitted: tuple[int, ...]) -> None:
        """Start a state for `request row` behind `emitted`. Raises UnsupportedConstraint when it rules that out."""
        from .compiler import GrammarState  # noqa: PLC0415 -- whoever compiled `grammar` has paid for the import

        state = GrammarState(grammar)
        if not all(state.accept(token) for token in emitted):
            raise UnsupportedConstraint("the tokens that were already emitted break it; the answer cannot be continued")
        self._states[request_row] = state

    def leave(self, request_row: int) -> None:
        """Forget a request row's state, if it has one."""
        self._states.pop(request_row, None)

    def allowed(self, request_row: int, drafts: NDArray[np.int32]) -> int:
        """How many of `drafts` may come one after the other."""
        state = self._states.get(request_row)
        return len(drafts) if state is None else state.allowed(drafts.tolist())

    def accept(self, request_row: int, token: int) -> None:
        """Take one drawn token of a request row. Raises GenerationFailed where the grammar does not allow it."""
        state = self._states.get(request_row)
        if state is not None and not state.accept(token):
            raise GenerationFailed("a token was drawn that its grammar does not allow")

    def too_slow(self) -> set[int]:
        """Tickets whose masks hold up the step, and with it everybody's answers."""
        return {request_row for request_row, state in self._states.items() if state.too_slow}

    def mask(self, table: SlotTable, rows: DrawnRows, request_rows: RequestRows) -> Mask | None:
        """What may come in each drawn row; None when no row has a grammar. Valid until the next call."""
        if not self._states:
            return None
        states = [self._states.get(request_row) for request_row in request_rows.tolist()]
        if not any(states):
            return None
        if len(self._words) < len(states):
            self._words = torch.empty((max(len(states), 8), self._words.shape[1]), dtype=torch.int32)
        words = self._words[: len(states)]
        failed: dict[int, Exception] = {}
        places = zip(states, rows.slots.tolist(), rows.offsets.tolist(), strict=True)
        for i, (state, slot, offset) in enumerate(places):
            if state is None:
                words[i] = _EVERY
            elif not offset:
                # Rows behind drafts are filled together with the first of their sequence.
                drafted, known = int(table.drafted[slot]), int(table.length[slot])
                drafts = table.tokens[slot, known : known + drafted].tolist() if drafted else ()
                try:
                    state.fill(words, i, drafts)
                except Exception as error:
                    words[i : i + drafted + 1] = _EVERY
                    failed[i] = error
        allowed = (words.numpy() & self._inside) != 0
        empty = ~allowed.any(axis=1)
        # What is drawn there counts for nothing, but has to be drawn.
        words[torch.from_numpy(empty)] = _EVERY
        return Mask(words, empty, failed)
