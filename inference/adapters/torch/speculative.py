"""Where drafts come from: the text itself, or a smaller model with the same tokenizer."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from inference.core.scheduling.table import Rows, SlotTable
from inference.core.speculation import Trust, prompt_lookup

from .runner_api import ModelRunner, StepBatch
from .sampling import Sampler
from .sampling_table import SamplingTable


class Drafter(Protocol):
    """Guesses what sequences will say next.

    One that `needs_memory` runs a model: it guesses once the step's blocks are held. Another guesses before the step is
    planned, so that a step without guesses is a plain one.
    """

    needs_memory: bool

    def enter(self, slot: int) -> None:
        """Another sequence has taken `slot`."""
        ...

    def draft(self, table: SlotTable, rows: Rows) -> None:
        """Guess for each of `rows` at most as many tokens as `table.drafted` says.

        Writes them behind the known tokens, and their number to `table.drafted`.
        """
        ...

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """Follow the block copies of the step."""
        ...

    def close(self) -> None:
        """Free what it holds. May be called twice."""
        ...


class PromptLookup:
    """Guesses that what followed the same few tokens before follows again; runs the guess where the last ones held."""

    needs_memory = False

    def __init__(self, slots: int) -> None:
        self._trust = Trust(slots)

    def enter(self, slot: int) -> None:
        """See Drafter."""
        self._trust.reset(slot)

    def draft(self, table: SlotTable, rows: Rows) -> None:
        """See Drafter."""
        for row in rows.tolist():
            known = int(table.length[row])
            text = table.tokens[row, :known]
            runs = self._trust.enough(row, text)
            guess = prompt_lookup(text, int(table.drafted[row]) if runs else 1)
            if len(guess):
                self._trust.guessed(row, int(guess[0]), known)
            held = guess if runs else guess[:0]
            table.tokens[row, known : known + len(held)] = held
            table.drafted[row] = len(held)

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """See Drafter."""

    def close(self) -> None:
        """See Drafter."""


class ModelDrafter:
    """Lets a smaller model guess, with the random numbers that the large one will draw with.

    Its KV memory has a block for each of the large model's, so one block table serves both. What it has not run yet of
    a sequence it runs when it is next asked. A block whose drafting half is stale makes guesses worse, never answers.
    """

    needs_memory = True

    def __init__(self, runner: ModelRunner, slots: int, sampling: SamplingTable) -> None:
        self._runner = runner
        self._sampling = sampling
        self._sampler = Sampler(runner, sampling)
        self._computed = np.zeros(slots, np.int32)

    def enter(self, slot: int) -> None:
        """See Drafter."""
        self._computed[slot] = 0

    def draft(self, table: SlotTable, rows: Rows) -> None:
        """See Drafter."""
        wanted = table.drafted[rows].copy()
        # What a rejected draft left behind is run again.
        self._computed[rows] = np.minimum(self._computed[rows], table.length[rows] - 1)
        for guessed in range(int(wanted.max(initial=0))):
            chosen = rows[wanted > guessed]
            known = table.length[chosen] + guessed
            logits = self._runner.forward(self._batch(table, chosen, known))
            request_rows = table.request_row[chosen]
            drawn = self._sampler.draw(logits, request_rows, (known - table.prompt_length[chosen]).astype(np.int64))
            table.tokens[chosen, known] = drawn.tokens
            self._computed[chosen] = known

    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """See Drafter."""
        self._runner.copy_blocks(pairs)

    def close(self) -> None:
        """See Drafter."""
        self._runner.close()

    def _batch(self, table: SlotTable, rows: Rows, known: np.ndarray[tuple[int], np.dtype[np.int32]]) -> StepBatch:
        """Everything of `rows` that the small model has not run, up to `known` tokens; logits of each last one."""
        counts = known - self._computed[rows]
        ends = np.cumsum(counts, dtype=np.int32)
        starts = np.concatenate((np.zeros(1, np.int32), ends))
        positions = np.arange(ends[-1], dtype=np.int32) + np.repeat(self._computed[rows] - starts[:-1], counts)
        width = -(-int(known.max()) // table.block_size)
        return StepBatch(
            token_ids=table.tokens[np.repeat(rows, counts), positions],
            positions=positions,
            query_starts=starts,
            context_lens=known.astype(np.int32),
            block_tables=table.blocks[rows, :width],
            logits_rows=ends - 1,
            adapter_ids=np.zeros(len(rows), np.int32),
        )
