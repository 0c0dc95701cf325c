"""The grammars of the answers being written, and what they allow in a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.core.port import EngineError, UnsupportedConstraint
from inference.core.scheduling.table import SlotTable

from .batching import DrawnRows
from .sampling_table import RequestRows

if TYPE_CHECKING:
    from .grammar import GrammarState


class GrammarsInUse:
    """One state for each request row that has a grammar. Used on the engine's thread only."""

    def __init__(self, vocab_size: int) -> None:
        self._states: dict[int, GrammarState] = {}
        self._words = torch.empty((0, -(-vocab_size // 32)), dtype=torch.int32)

    def enter(self, request_row: int, grammar: Any, emitted: tuple[int, ...]) -> None:
        """Start a state for `request row` behind `emitted`. Raises UnsupportedConstraint when it rules that out."""
        from .grammar import GrammarState  # noqa: PLC0415 -- whoever compiled `grammar` has paid for the import

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

    def accept(self, request_rows: RequestRows, tokens: NDArray[np.int32]) -> None:
        """Take one drawn token for each request row. The mask allowed them."""
        if self._states:
            for request_row, token in zip(request_rows.tolist(), tokens.tolist(), strict=True):
                state = self._states.get(request_row)
                if state is not None and not state.accept(token):
                    raise EngineError("a token was drawn that its grammar does not allow")

    def too_slow(self) -> set[int]:
        """Tickets whose masks hold up the step, and with it everybody's answers."""
        return {request_row for request_row, state in self._states.items() if state.too_slow}

    def mask(self, table: SlotTable, rows: DrawnRows, request_rows: RequestRows) -> torch.Tensor | None:
        """What may come in each drawn row, as ModelRunner.summarize takes it; None when no row has a grammar.

        Valid until the next call.
        """
        if not self._states:
            return None
        states = [self._states.get(request_row) for request_row in request_rows.tolist()]
        if not any(states):
            return None
        if len(self._words) < len(states):
            self._words = torch.empty((max(len(states), 8), self._words.shape[1]), dtype=torch.int32)
        words = self._words[: len(states)]
        places = zip(states, rows.slots.tolist(), rows.offsets.tolist(), strict=True)
        for i, (state, slot, offset) in enumerate(places):
            if state is None:
                words[i] = -1
            elif not offset:
                # Rows behind drafts are filled together with the first of their sequence.
                drafted = int(table.drafted[slot])
                known = int(table.length[slot])
                state.fill(words, i, table.tokens[slot, known : known + drafted].tolist() if drafted else ())
        return words
