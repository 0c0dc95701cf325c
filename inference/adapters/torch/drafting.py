"""Drafts in the engine's step: who gets how many, which of them held, and whether it pays."""

from __future__ import annotations

import numpy as np
import prometheus_client
from numpy.typing import NDArray

from inference.core.scheduling.scheduled_step import ScheduledStep
from inference.core.scheduling.scheduler import Scheduler
from inference.core.scheduling.table import Rows, SlotTable
from inference.core.speculation import DraftWidths, Mode, PayOff

from .batching import DrawnRows
from .constraints.grammars_in_use import GrammarsInUse
from .engine_log import engine_log
from .sampling_table import SamplingTable
from .speculative import Drafter

MAX_DRAFTS = 8

_guesses = prometheus_client.Counter(
    "headrace_inference_draft_tokens", "Tokens guessed ahead, by whether the model drew them as well.", ("held",)
)
_log = engine_log()
_held, _failed = _guesses.labels(held="true"), _guesses.labels(held="false")


class Drafting:
    """Used on the engine's thread only. Choices with penalties are never drafted: each token changes the next draw."""

    def __init__(self, drafter: Drafter, sampling: SamplingTable, request_rows: int) -> None:
        self.drafter = drafter
        self.widths = DraftWidths(request_rows, MAX_DRAFTS)
        self._sampling = sampling
        self._payoff = PayOff()

    def reserve(self, scheduler: Scheduler, grammars: GrammarsInUse) -> None:
        """Before the plan: ask for room for drafts of what decodes, while nobody waits and drafting pays."""
        table = scheduler.table
        rows = scheduler.rows[table.length[scheduler.rows] - table.computed[scheduler.rows] == 1]
        if not len(rows) or len(scheduler.waiting):
            return
        if not self._payoff.drafts(len(rows)):
            return
        request_rows = table.request_row[rows]
        wanted = np.minimum(self.widths.width[request_rows], scheduler.draft_capacity(rows))
        # A step stays within its budget of tokens.
        wanted = np.minimum(wanted, max(0, scheduler.limits.token_budget // len(rows) - 1))
        table.drafted[rows] = np.where(self._sampling.penalized[request_rows], 0, wanted)
        if not self.drafter.needs_memory:
            self._guess_or_not(table, rows[table.drafted[rows] > 0], grammars)

    def fill(self, scheduled: ScheduledStep, table: SlotTable, grammars: GrammarsInUse) -> None:
        """After the plan: guess what could not be guessed before, and fit the plan to what there is."""
        if not self.drafter.needs_memory:
            return
        if scheduled.copies:
            self.drafter.copy_blocks(scheduled.copies)
        places = np.flatnonzero(table.drafted[scheduled.rows])
        if not len(places):
            return
        rows = scheduled.rows[places]
        self._guess_or_not(table, rows, grammars)
        scheduled.counts[places] = 1 + table.drafted[rows]

    def _guess_or_not(self, table: SlotTable, rows: Rows, grammars: GrammarsInUse) -> None:
        """Drafts are a guess: no answer ends because one could not be made."""
        try:
            self._guess(table, rows, grammars)
        except Exception as error:
            _log.error("engine.drafts_failed", error=type(error).__name__)
            table.drafted[rows] = 0

    def _guess(self, table: SlotTable, rows: Rows, grammars: GrammarsInUse) -> None:
        """Guess, and drop what grammars rule out."""
        self.drafter.draft(table, rows)
        for row in rows[table.drafted[rows] > 0].tolist():
            known = int(table.length[row])
            drafts = table.tokens[row, known : known + int(table.drafted[row])]
            table.drafted[row] = grammars.allowed(int(table.request_row[row]), drafts)

    def verify(
        self,
        scheduled: ScheduledStep,
        table: SlotTable,
        rows: DrawnRows,
        tokens: NDArray[np.int32],
        counts: NDArray[np.bool_],
    ) -> NDArray[np.int32]:
        """How many drafts of each planned sequence held; clears `counts` of rows drawn behind a draft that did not."""
        accepted = np.zeros(len(scheduled.rows), np.int32)
        begins = np.flatnonzero(rows.offsets == 0)
        places = np.flatnonzero(scheduled.draws)
        for place, begin in zip(places.tolist(), begins.tolist(), strict=True):
            slot = scheduled.rows[place]
            drafted = int(table.drafted[slot])
            if not drafted:
                continue
            known = int(table.length[slot])
            agrees = tokens[begin : begin + drafted] == table.tokens[slot, known : known + drafted]
            held = drafted if agrees.all() else int(agrees.argmin())
            accepted[place] = held
            counts[begin + held + 1 : begin + drafted + 1] = False
            self._account(table, int(slot), drafted, held)
        return accepted

    def learn(self, running: int, drafted: bool, tokens: int, seconds: float) -> None:
        """Book what a step gave and took."""
        self._payoff.learn(running, Mode.DRAFTED if drafted else Mode.PLAIN, tokens, seconds)

    def _account(self, table: SlotTable, slot: int, drafted: int, held: int) -> None:
        self.widths.learn(int(table.request_row[slot]), drafted, held)
        _held.inc(held)
        _failed.inc(drafted - held)
        seq = table.sequence[slot]
        if seq is not None:
            seq.owner.drafted += drafted
            seq.owner.accepted += held
