"""The engine's step on a device that runs by itself: the next step is launched before the last one's tokens are read.

A decode step needs from the one before only the tokens that it drew, and those are on the device. So the host plans
step k + 1 with a placeholder where each unread token belongs, launches it, and only then waits for step k, while the
device is busy. What the tokens decide is decided one step late:

- a sequence that drew its end runs one step more, whose result is dropped (it writes only where it alone writes: its
  blocks go back after the step was launched, and whoever takes them writes in a later one);
- a sequence that reaches its length limit is known to without its tokens, and ends at once.

Where the next step depends on more than the tokens (grammars, penalties) or on more of the logits (biases,
alternatives to report), steps run one after the other as on a CPU for as long as such a request is in the house.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.adapters.torch.batching import step_batch
from inference.adapters.torch.engine_log import engine_log
from inference.adapters.torch.event_queue import Delivery, TokenOutput
from inference.adapters.torch.failed_generations import not_finite
from inference.adapters.torch.generation import Generation
from inference.adapters.torch.sampling import Drawn
from inference.adapters.torch.sampling_table import SamplingTable
from inference.adapters.torch.stepping import Stepper
from inference.core.port import EngineError, Finish, TokenLogprob
from inference.core.scheduling.scheduled_step import ScheduledStep
from inference.core.scheduling.scheduler import Scheduler
from inference.core.scheduling.sequence import Sequence

from .drawing import Fetch, Mark, draw
from .launching import LaunchingRunner

_log = engine_log()


@dataclass(frozen=True, slots=True)
class _Flight:
    """A launched step: for each row that it draws, whose it is and where among the sequence's tokens it belongs."""

    scheduled: ScheduledStep
    sequences: list[Sequence]
    places: NDArray[np.int32]
    fetch: Fetch | Mark
    launched_at: float


class OverlappedStepper(Stepper):
    """See Stepper."""

    def __init__(
        self, runner: LaunchingRunner, scheduler: Scheduler, sampling: SamplingTable, request_rows: int
    ) -> None:
        super().__init__(runner, scheduler, sampling, request_rows)
        self._launching = runner
        self._flight: _Flight | None = None
        self._read_at = 0.0
        # By request row: the row of the flight that draws its next token, or -1 where the host knows all of its tokens.
        self._source = np.full(request_rows, -1, np.int32)
        self._waits = np.zeros(request_rows, np.bool_)
        self._waiting_tickets = 0

    @property
    def busy(self) -> bool:
        """See Stepper."""
        return self._flight is not None or super().busy

    def step(self) -> list[Delivery]:
        """See Stepper. What it gives is mostly what the step before has drawn."""
        if self._waiting_tickets or self.scheduler.limits.max_running > self._launching.max_drawn:
            read = self._read_flight()
            return read + super().step()
        self._out = []
        began = time.monotonic()
        try:
            launched = self._launch(began)
        except Exception as error:
            # Step by step it shows whether one sequence is to blame, or the device.
            _log.error("engine.launch_failed", error=type(error).__name__)
            return self._read_flight() + super().step()
        last, self._flight = self._flight, launched
        if last is not None:
            self._read(last)
        if launched is not None:
            self.scheduler.update(launched.scheduled)
            self._expect(launched)
        return self._out

    def fail(self, error: EngineError) -> list[Delivery]:
        """See Stepper."""
        self._flight = None
        return super().fail(error)

    def _register(self, generation: Generation, seq: Sequence) -> None:
        super()._register(generation, seq)
        request_row = seq.request_row
        waits = (
            generation.grammar is not None
            or self._sampling.adjusted[request_row]
            or self._sampling.logprobs[request_row] > 0
        )
        self._waits[request_row] = waits
        self._waiting_tickets += int(waits)

    def _release(self, seq: Sequence) -> None:
        self._source[seq.request_row] = -1
        self._waiting_tickets -= int(self._waits[seq.request_row])
        self._waits[seq.request_row] = False
        super()._release(seq)

    def _launch(self, began: float) -> _Flight | None:
        """Plan a step and start it; None when there is nothing to run."""
        scheduler, table = self.scheduler, self.scheduler.table
        scheduled = scheduler.schedule()
        if scheduled is None:
            return None
        self.steps += 1
        self._note_started(scheduled, began)
        if scheduled.copies:
            self._runner.copy_blocks(scheduled.copies)
        batch, rows = step_batch(table, scheduled)
        request_rows = table.request_row[rows.slots]
        sources = np.full(len(batch.token_ids), -1, np.int32)
        # A row that draws is its sequence's last known token: the one that may not have been read yet.
        sources[batch.logits_rows] = self._source[request_rows]
        launched = self._launching.launch(batch, sources)
        places = table.length[rows.slots]
        fetch: Fetch | Mark = Mark(launched)
        if len(rows.slots):
            positions = (places - table.prompt_length[rows.slots]).astype(np.int64)
            fetch = draw(self._launching, launched, self._sampling, request_rows, positions)
        sequences = [seq for seq in (table.sequence[slot] for slot in rows.slots) if seq is not None]
        return _Flight(scheduled, sequences, places, fetch, time.monotonic())

    def _expect(self, flight: _Flight) -> None:
        """Put placeholders where the flight's tokens belong, and end what reaches its limit with them."""
        scheduler, table = self.scheduler, self.scheduler.table
        self._source[:] = -1
        alive = np.fromiter((seq.slot >= 0 for seq in flight.sequences), np.bool_, len(flight.sequences))
        drawing = [seq for seq in flight.sequences if seq.slot >= 0]
        if not drawing:
            return
        slots = np.fromiter((seq.slot for seq in drawing), np.intp, len(drawing))
        scheduler.append(slots, np.zeros(len(slots), np.int32))
        self._source[table.request_row[slots]] = np.flatnonzero(alive)
        full = table.length[slots] >= table.limit[slots]
        for index in np.flatnonzero(full).tolist():
            scheduler.finish(drawing[index])

    def _read_flight(self) -> list[Delivery]:
        """Read what is in flight, if anything, so that the host knows all there is."""
        self._out = []
        last, self._flight = self._flight, None
        if last is not None:
            self._read(last)
        self._source[:] = -1
        return self._out

    def _read(self, flight: _Flight) -> None:
        """Wait for a step's tokens and book them; what was cancelled meanwhile is dropped."""
        drawn = flight.fetch.wait()
        now = time.monotonic()
        # The device began with it when it was told to, or when it was done with the one before.
        self._account(flight.scheduled, now - max(flight.launched_at, self._read_at))
        self._read_at = now
        if drawn is None:
            return
        for seq, finite in zip(flight.sequences, drawn.finite.tolist(), strict=True):
            if not finite and seq.request_row >= 0:
                self._failed.add(seq.owner, not_finite(seq))
        self._end_failed()
        rows = np.flatnonzero(np.fromiter((seq.request_row >= 0 for seq in flight.sequences), np.bool_))
        request_rows = np.fromiter((flight.sequences[row].request_row for row in rows), np.intp, len(rows))
        self._confidence.add(request_rows, drawn.logprob[rows], drawn.entropy[rows], drawn.margin[rows])
        for row in rows.tolist():
            seq = flight.sequences[row]
            try:
                self._read_row(seq, int(flight.places[row]), row, drawn, now)
            except Exception as error:
                self._failed.add(seq.owner, error)
        self._end_failed()
        self.meter.add(len(rows), now)

    def _read_row(self, seq: Sequence, place: int, row: int, drawn: Drawn, now: float) -> None:
        token = int(drawn.tokens[row])
        generation: Generation = seq.owner
        if not generation.first_token_at:
            generation.first_token_at = now
        if self._is_eos[token] and not seq.ignore_eos:
            # It may be running, or wait to be computed again, or have reached its limit.
            if seq.slot >= 0:
                self.scheduler.finish(seq)
            else:
                self.scheduler.cancel(seq)
            self._ended(seq, Finish.STOP)
            return
        if seq.slot >= 0:
            self.scheduler.table.tokens[seq.slot, place] = token
        else:
            seq.tokens[place] = token
        generation.count(seq.index)
        logprob = (
            TokenLogprob(token, float(drawn.logprob[row])) if self._sampling.logprobs[seq.request_row] >= 0 else None
        )
        self._out.append(Delivery(generation.event_queue, seq.index, TokenOutput(token, logprob)))
        if place + 1 >= seq.limit:
            self._ended(seq, Finish.LENGTH)
        elif seq.index in generation.unwanted:
            self._end_unwanted(seq)
