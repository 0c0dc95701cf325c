"""One step of the engine: plan, draft, run, draw, book, and say who gained what."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inference.core.confidence import ConfidenceTable
from inference.core.meter import RateMeter
from inference.core.port import EngineError, Finish, TokenLogprob, UnsupportedConstraint
from inference.core.scheduling.scheduled_step import ScheduledStep
from inference.core.scheduling.scheduler import Scheduler
from inference.core.scheduling.sequence import Sequence

from .batching import DrawnRows, step_batch
from .event_queue import Delivery, TokenOutput
from .generation import Generation
from .grammars_in_use import GrammarsInUse
from .runner_api import ModelRunner
from .sampling import Drawn, Sampler
from .sampling_table import SamplingTable

if TYPE_CHECKING:
    # It counts in a metric, for which a machine that only measures needs no library.
    from .drafting import Drafting


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
        self._out: list[Delivery] = []

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return self.scheduler.busy

    def add(self, generation: Generation) -> list[Delivery]:
        """Take a new generation in. Raises UnsupportedConstraint when what was emitted breaks its grammar."""
        self._out = []
        self._generations[generation] = None
        sequences = generation.split(self.scheduler.pool, self.scheduler.context_length)
        try:
            for seq in sequences:
                self._register(generation, seq)
        except EngineError:
            self._drop(generation)
            raise
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
        self._note_started(scheduled, began)
        if scheduled.copies:
            self._runner.copy_blocks(scheduled.copies)
        if self._drafting is not None:
            if scheduled.copies:
                self._drafting.drafter.copy_blocks(scheduled.copies)
            self._drafting.fill(scheduled, table, self._grammars)
        batch, rows = step_batch(table, scheduled)
        logits = self._runner.forward(batch)
        if not len(rows.slots):
            scheduler.update(scheduled)
            return self._out
        request_rows = table.request_row[rows.slots]
        positions = (table.length[rows.slots] - table.prompt_length[rows.slots] + rows.offsets).astype(np.int64)
        mask = self._grammars.mask(table, rows, request_rows)
        drawn = self._sampler.draw(logits, request_rows, positions, mask)
        self._book(scheduled, rows, drawn, time.monotonic(), began)
        if mask is not None:
            self._end_slow_grammars()
        return self._out

    def _end_slow_grammars(self) -> None:
        """The probe before compiling does not find every slow place of a grammar; who comes to one ends there."""
        slow = self._grammars.too_slow()
        if not slow:
            return
        for generation in [g for g in self._generations if any(seq.request_row in slow for seq in g.sequences)]:
            self._drop(generation)
            error = UnsupportedConstraint(
                "what may come next took too long to find; avoid repetitions of what is itself repeated or optional, "
                "and rules that begin with themselves"
            )
            self._out.append(Delivery(generation.event_queue, end=error))

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

    def _book(self, scheduled: ScheduledStep, rows: DrawnRows, drawn: Drawn, now: float, began: float) -> None:
        """Book a step's tokens, those behind drafts in turns: first every sequence's first token, then the second."""
        scheduler = self.scheduler
        counts = np.ones(len(rows.slots), np.bool_)
        decoding_alone = int(scheduled.draws.sum()) == len(scheduler.rows)
        drafted = rows.offsets.any()
        running = len(scheduled.rows)
        if self._drafting is not None and drafted:
            accepted = self._drafting.verify(scheduled, scheduler.table, rows, drawn.tokens, counts)
            scheduler.update(scheduled, accepted)
        else:
            scheduler.update(scheduled)
        total = 0
        for turn in range(int(rows.offsets.max()) + 1):
            chosen = np.flatnonzero(counts & (rows.offsets == turn)) if drafted else np.arange(len(counts))
            ended = self._book_turn(rows.slots[chosen], chosen, drawn, now)
            total += len(chosen)
            if drafted:
                counts &= ~np.isin(rows.slots, ended)
        self.meter.add(total, now)
        if self._drafting is not None and decoding_alone:
            self._drafting.learn(running, bool(drafted), total, now - began)

    def _book_turn(
        self, slots: NDArray[np.intp], chosen: NDArray[np.intp], drawn: Drawn, now: float
    ) -> NDArray[np.intp]:
        """One token for each of `slots`; the slots whose sequences ended."""
        table = self.scheduler.table
        tokens, request_rows = drawn.tokens[chosen], table.request_row[slots]
        self._confidence.add(request_rows, drawn.logprob[chosen], drawn.entropy[chosen], drawn.margin[chosen])
        self._grammars.accept(request_rows, tokens)
        stop = self._is_eos[tokens] & ~table.ignore_eos[slots]
        go = ~stop
        self.scheduler.append(slots[go], tokens[go])
        self._sampling.count(request_rows[go], tokens[go])
        full = (table.length[slots] >= table.limit[slots]) & go
        with_logprobs = self._sampling.logprobs[request_rows] >= 0
        out = self._out
        for i, (slot, token, stopped) in enumerate(zip(slots.tolist(), tokens.tolist(), stop.tolist(), strict=True)):
            seq = table.sequence[slot]
            assert seq is not None  # a slot that was drawn for is occupied
            generation = seq.owner
            if not generation.first_token_at:
                generation.first_token_at = now
            if stopped:
                continue
            generation.drawn += 1
            row = int(chosen[i])
            logprob = (
                TokenLogprob(token, float(drawn.logprob[row]), drawn.top.get(row, ())) if with_logprobs[i] else None
            )
            out.append(Delivery(generation.event_queue, seq.index, TokenOutput(token, logprob)))
        ended = np.flatnonzero(stop | full)
        for i in ended.tolist():
            seq = table.sequence[slots[i]]
            if seq is not None:
                self.scheduler.finish(seq)
                self._ended(seq, Finish.STOP if stop[i] else Finish.LENGTH)
        return slots[ended]

    def _ended(self, seq: Sequence, finish: Finish) -> None:
        generation: Generation = seq.owner
        gain = TokenOutput(finish=finish, confidence=self._confidence.of(seq.request_row))
        self._release(seq)
        generation.unfinished -= 1
        self._out.append(Delivery(generation.event_queue, seq.index, gain))
        if not generation.unfinished:
            del self._generations[generation]
            self._out.append(Delivery(generation.event_queue, end=generation.summary(time.monotonic())))
