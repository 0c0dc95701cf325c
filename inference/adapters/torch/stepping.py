"""One step of the engine: plan, draft, run, draw, book, and say who gained what."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from inference.core.blocks import PoolCounts
from inference.core.confidence import ConfidenceTable
from inference.core.meter import RateMeter
from inference.core.port import EngineError, Finish, TokenLogprob, UnsupportedConstraint
from inference.core.scheduling.scheduled_step import ScheduledStep
from inference.core.scheduling.scheduler import Scheduler
from inference.core.scheduling.sequence import Sequence

from .batching import DrawnRows, step_batch
from .constraints.grammars_in_use import GrammarsInUse, Mask
from .drawn_apart import draw
from .event_queue import Delivery, TokenOutput
from .failed_generations import FailedGenerations, as_engine_error
from .generation import Generation
from .isolation import forward
from .runner_api import ModelRunner, StepBatch
from .sampling import Drawn, Sampler
from .sampling_table import SamplingTable

if TYPE_CHECKING:
    # It counts in a metric, for which a machine that only measures needs no library.
    from .drafting import Drafting


class StepObserver(Protocol):
    """Counts what steps do, on the engine's thread."""

    def step(self, prefill: int, decode: int, seconds: float) -> None:
        """A step ran so many tokens of prompts and of answers."""
        ...

    def memory(self, preemptions: int, counts: PoolCounts) -> None:
        """Totals since the start."""
        ...


class Stepper:
    """Everything that the engine's thread owns. Not for use from any other, but for the plain numbers in `load`."""

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        sampling: SamplingTable,
        request_rows: int,
        drafting: Drafting | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.meter = RateMeter()
        # Steps that were run: whether it moves tells a busy engine from one that stands still.
        self.steps = 0
        self._runner = runner
        self._sampling = sampling
        self._sampler = Sampler(runner, sampling)
        self._confidence = ConfidenceTable(request_rows)
        self._grammars = GrammarsInUse(runner.spec.vocab_size)
        self._drafting = drafting
        self._free_tickets = list(range(request_rows - 1, -1, -1))
        self._generations: dict[Generation, None] = {}
        self._is_eos = np.zeros(runner.spec.vocab_size, np.bool_)
        self._is_eos[list(runner.spec.eos_ids)] = True
        self._failed = FailedGenerations()
        # Told of each step; set by whoever counts them.
        self.observer: StepObserver | None = None
        self._out: list[Delivery] = []

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return self.scheduler.busy

    def add(self, generation: Generation) -> list[Delivery]:
        """Take a new generation in.

        Raises UnsupportedConstraint when what was emitted breaks its grammar, GenerationFailed for any defect.
        """
        self._out = []
        self._generations[generation] = None
        sequences = generation.split(self.scheduler.pool, self.scheduler.context_length)
        try:
            for seq in sequences:
                self._register(generation, seq)
        except Exception as error:
            self._drop(generation)
            raise as_engine_error(error) from error
        pending = [seq for seq in sequences if len(seq.tokens) < seq.limit]
        for seq in sequences:
            if len(seq.tokens) >= seq.limit:
                self._ended(seq, Finish.LENGTH)
        if pending:
            pending[0].siblings = pending[1:]
            self.scheduler.add(pending[0])
        return self._out

    def cancel(self, generation: Generation) -> None:
        """Forget a generation, wherever it is, and free what it holds. Callable twice."""
        if generation in self._generations:
            self._drop(generation)

    def end_choice(self, generation: Generation, index: int) -> list[Delivery]:
        """Draw no more of one choice, without a word of its end. Callable twice."""
        self._out = []
        seq = generation.sequences[index] if generation in self._generations else None
        if seq is not None and seq.request_row >= 0:
            generation.unwanted.add(index)
            # Others may still fork off one that has drawn nothing.
            if generation.gained(index):
                self._end_unwanted(seq)
        return self._out

    def fail(self, error: EngineError) -> list[Delivery]:
        """End all that is running or waiting with `error`; what KV memory holds is not trusted any more."""
        failed = list(self._generations)
        for generation in failed:
            self._drop(generation)
        self.scheduler.pool.forget()
        return [Delivery(generation.event_queue, end=error) for generation in failed]

    def step(self) -> list[Delivery]:
        """Run one step. What it gave, in order; empty when nothing was there to run."""
        self._out = []
        began = time.monotonic()
        scheduler, table = self.scheduler, self.scheduler.table
        if self._drafting is not None:
            self._drafting.reserve(scheduler, self._grammars)
        scheduled = scheduler.schedule()
        if scheduled is None:
            return self._out
        self.steps += 1
        self._note_started(scheduled, began)
        if scheduled.copies:
            self._runner.copy_blocks(scheduled.copies)
        if self._drafting is not None:
            self._drafting.fill(scheduled, table, self._grammars)
        batch, rows = step_batch(table, scheduled)
        logits = self._forward(scheduled, batch)
        if len(rows.slots):
            self._draw_and_book(scheduled, rows, logits, began)
        else:
            self._end_failed()
            scheduler.update(scheduled)
        self._account(scheduled, time.monotonic() - began)
        return self._out

    def _account(self, scheduled: ScheduledStep, seconds: float) -> None:
        """Learn from what a step took, and show it."""
        self.scheduler.cost.learn(scheduled.work, seconds)
        if self.observer is not None:
            self.observer.step(scheduled.work.prompts, scheduled.work.answers, seconds)
            self.observer.memory(self.scheduler.preemptions, self.scheduler.pool.counts())

    def _forward(self, scheduled: ScheduledStep, batch: StepBatch) -> torch.Tensor:
        """The step's logits; sequences that cannot be run have failed."""
        return forward(
            self._runner,
            batch,
            failed=lambda place, error: self._fail(scheduled.rows[place], error),
            spare_block=self._spare_block,
        )

    def _spare_block(self) -> int:
        """A block that nobody holds: whatever is written there is overwritten before it is read."""
        pool = self.scheduler.pool
        blocks = pool.allocate(1)
        pool.release(blocks)
        return blocks[0]

    def _draw_and_book(self, scheduled: ScheduledStep, rows: DrawnRows, logits: torch.Tensor, began: float) -> None:
        table = self.scheduler.table
        request_rows = table.request_row[rows.slots]
        positions = (table.length[rows.slots] - table.prompt_length[rows.slots] + rows.offsets).astype(np.int64)
        mask = self._grammars.mask(table, rows, request_rows)
        allowed = None if mask is None else mask.words
        drawn = draw(self._sampler, logits, rows, request_rows, positions, allowed=allowed, failed=self._fail)
        self._book(scheduled, rows, drawn, mask, began)
        if mask is not None:
            self._end_slow_grammars()

    def _fail(self, slot: int, error: Exception) -> None:
        """The sequence in `slot` is to end with `error`."""
        seq = self.scheduler.table.sequence[slot]
        if seq is not None:
            self._failed.add(seq.owner, error)

    def _end_failed(self) -> None:
        for generation, error in self._failed.take().items():
            if generation not in self._generations:
                continue
            # What they left in KV memory is as doubtful as what came out of it.
            for seq in generation.sequences:
                self.scheduler.pool.retract(seq.blocks)
            self._drop(generation)
            self._out.append(Delivery(generation.event_queue, end=error))

    def _end_slow_grammars(self) -> None:
        """The probe before compiling does not find every slow place of a grammar; who comes to one ends there."""
        slow = self._grammars.too_slow()
        for generation in [g for g in self._generations if any(seq.request_row in slow for seq in g.sequences)]:
            error = UnsupportedConstraint(
                "what may come next took too long to find; avoid repetitions of what is itself repeated or optional, "
                "and rules that begin with themselves"
            )
            self._failed.add(generation, error)
        self._end_failed()

    def _register(self, generation: Generation, seq: Sequence) -> None:
        request_row = seq.request_row = self._free_tickets.pop()
        emitted = generation.emitted(seq.index)
        request = generation.request
        self._confidence.reset(request_row)
        self._sampling.enter(
            request_row,
            request.sampling,
            seed=generation.seed,
            stream=seq.index,
            prompt=request.prompt,
            emitted=emitted,
        )
        if self._drafting is not None:
            self._drafting.widths.reset(request_row)
        if generation.grammar is not None:
            self._grammars.enter(request_row, generation.grammar, emitted)

    def _drop(self, generation: Generation) -> None:
        del self._generations[generation]
        for seq in generation.sequences:
            if seq.request_row >= 0:
                self.scheduler.cancel(seq)
                self._release(seq)

    def _release(self, seq: Sequence) -> None:
        self._sampling.leave(seq.request_row)
        self._grammars.leave(seq.request_row)
        self._free_tickets.append(seq.request_row)
        seq.request_row = -1

    def _note_started(self, scheduled: ScheduledStep, now: float) -> None:
        for seq in scheduled.started:
            if self._drafting is not None:
                self._drafting.drafter.enter(seq.slot)
            if not seq.owner.started_at:
                seq.owner.started_at = now

    def _book(self, scheduled: ScheduledStep, rows: DrawnRows, drawn: Drawn, mask: Mask | None, began: float) -> None:
        """Book a step's tokens, those behind drafts in turns: first every sequence's first token, then the second."""
        scheduler = self.scheduler
        table, now = scheduler.table, time.monotonic()
        counts = np.ones(len(rows.slots), np.bool_)
        decoding_alone = int(scheduled.draws.sum()) == len(scheduler.rows)
        drafted = bool(rows.offsets.any())
        accepted = None
        if self._drafting is not None and drafted:
            accepted = self._drafting.verify(scheduled, table, rows, drawn.tokens, counts)
        self._failed.judge([table.sequence[slot] for slot in rows.slots], rows, drawn.finite, mask, counts)
        self._end_failed()
        scheduler.update(scheduled, accepted)
        total = 0
        for turn in range(int(rows.offsets.max()) + 1):
            chosen = np.flatnonzero(counts & (rows.offsets == turn))
            ended = self._book_turn(rows.slots[chosen], chosen, drawn, now)
            total += len(chosen)
            if drafted:
                counts &= ~np.isin(rows.slots, ended)
        self._end_failed()
        self.meter.add(total, now)
        if self._drafting is not None and decoding_alone:
            self._drafting.learn(len(scheduled.rows), drafted, total, now - began)

    def _book_turn(
        self, slots: NDArray[np.intp], chosen: NDArray[np.intp], drawn: Drawn, now: float
    ) -> NDArray[np.intp]:
        """One token for each of `slots`; the slots whose sequences ended, or failed."""
        table = self.scheduler.table
        tokens, request_rows = drawn.tokens[chosen], table.request_row[slots]
        self._confidence.add(request_rows, drawn.logprob[chosen], drawn.entropy[chosen], drawn.margin[chosen])
        stop = self._is_eos[tokens] & ~table.ignore_eos[slots]
        go = ~stop
        self.scheduler.append(slots[go], tokens[go])
        full = (table.length[slots] >= table.limit[slots]) & go
        over = stop | full
        for i, slot in enumerate(slots.tolist()):
            seq = table.sequence[slot]
            if seq is None:
                continue
            try:
                self._gain(seq, int(chosen[i]), drawn, stopped=bool(stop[i]), now=now)
                if over[i]:
                    self.scheduler.finish(seq)
                    self._ended(seq, Finish.STOP if stop[i] else Finish.LENGTH)
                elif seq.index in seq.owner.unwanted:
                    self._end_unwanted(seq)
                    over[i] = True
            except Exception as error:
                self._failed.add(seq.owner, error)
                over[i] = True
        return slots[over]

    def _gain(self, seq: Sequence, row: int, drawn: Drawn, *, stopped: bool, now: float) -> None:
        """Give the owner of `seq` what it has drawn in `row`; the end of text alone is not given."""
        generation: Generation = seq.owner
        if not generation.first_token_at:
            generation.first_token_at = now
        token = int(drawn.tokens[row])
        self._grammars.accept(seq.request_row, token)
        if stopped:
            return
        self._sampling.count(seq.request_row, token)
        generation.count(seq.index)
        logprob = None
        if self._sampling.logprobs[seq.request_row] >= 0:
            logprob = TokenLogprob(token, float(drawn.logprob[row]), drawn.top.get(row, ()))
        self._out.append(Delivery(generation.event_queue, seq.index, TokenOutput(token, logprob)))

    def _ended(self, seq: Sequence, finish: Finish) -> None:
        gain = TokenOutput(finish=finish, confidence=self._confidence.of(seq.request_row))
        self._out.append(Delivery(seq.owner.event_queue, seq.index, gain))
        self._leave(seq)

    def _end_unwanted(self, seq: Sequence) -> None:
        self.scheduler.cancel(seq)
        self._leave(seq)

    def _leave(self, seq: Sequence) -> None:
        """Book that a choice is over, and with the last of them the generation."""
        generation: Generation = seq.owner
        self._release(seq)
        generation.unfinished -= 1
        if not generation.unfinished:
            del self._generations[generation]
            self._out.append(Delivery(generation.event_queue, end=generation.summary(time.monotonic())))
