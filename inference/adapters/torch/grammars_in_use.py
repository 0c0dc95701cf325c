"""The grammars of the answers being written, and what they allow in a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inference.core.port import EngineError, UnsupportedConstraint
from inference.core.scheduling.table import SlotTable

from .batching import DrawnRows
from .sampling_table import Tickets

if TYPE_CHECKING:
    from .grammar import GrammarState, TokenMask


class GrammarsInUse:
    """One state for each ticket that has a grammar. Used on the engine's thread only."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._states: dict[int, GrammarState] = {}
        self._mask: TokenMask | None = None

    def enter(self, ticket: int, grammar: Any, emitted: tuple[int, ...]) -> None:
        """Start a state for `ticket` behind `emitted`. Raises UnsupportedConstraint when it rules that out."""
        from .grammar import GrammarState  # noqa: PLC0415 -- whoever compiled `grammar` has paid for the import

        state = GrammarState(grammar)
        if not all(state.accept(token) for token in emitted):
            raise UnsupportedConstraint("the tokens that were already emitted break it; the answer cannot be continued")
        self._states[ticket] = state

    def leave(self, ticket: int) -> None:
        """Forget a ticket's state, if it has one."""
        self._states.pop(ticket, None)

    def allowed(self, ticket: int, drafts: NDArray[np.int32]) -> int:
        """How many of `drafts` may come one after the other."""
        state = self._states.get(ticket)
        return len(drafts) if state is None else state.allowed(drafts.tolist())

    def accept(self, tickets: Tickets, tokens: NDArray[np.int32]) -> None:
        """Take one drawn token for each ticket. The mask allowed them."""
        if self._states:
            for ticket, token in zip(tickets.tolist(), tokens.tolist(), strict=True):
                state = self._states.get(ticket)
                if state is not None and not state.accept(token):
                    raise EngineError("a token was drawn that its grammar does not allow")

    def mask(self, table: SlotTable, rows: DrawnRows, tickets: Tickets) -> TokenMask | None:
        """What may come in each drawn row; None when no row has a grammar."""
        if not self._states:
            return None
        masked = [(i, ticket) for i, ticket in enumerate(tickets.tolist()) if ticket in self._states]
        if not masked:
            return None
        mask = self._fresh(len(tickets))
        mask.rows = [i for i, _ in masked]
        for i, ticket in masked:
            if rows.offsets[i]:
                # Rows behind drafts are filled together with the first of their sequence.
                continue
            slot = rows.slots[i]
            known = int(table.length[slot])
            drafts = table.tokens[slot, known : known + int(table.drafted[slot])]
            self._states[ticket].fill(mask.words, i, drafts.tolist())
        return mask

    def _fresh(self, rows: int) -> TokenMask:
        from .grammar import TokenMask  # noqa: PLC0415 -- as above

        if self._mask is None or len(self._mask.words) < rows:
            self._mask = TokenMask(max(rows, 8), self._vocab_size)
        return self._mask
