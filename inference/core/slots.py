"""A fixed number of slots, and a bounded queue before them."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time

from inference.core.port import EngineOverloaded

_MIN_RETRY_S = 0.1
_MAX_RETRY_S = 30.0
# How much one request's time moves the average.
_WEIGHT = 0.2


class Ticket:
    """One place: first in the queue, then a slot. Give it back with `release`, whatever happened; twice is once."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._asked = time.monotonic()
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._taken = 0.0
        self._released = False

    @property
    def queued(self) -> bool:
        """Whether it still waits for its slot."""
        return not self.turn.done()

    async def wait(self) -> float:
        """Wait for the slot; returns the seconds that it took since the ticket was drawn."""
        await asyncio.shield(self.turn)
        self._taken = time.monotonic()
        return self._taken - self._asked

    def released_by(self, _task: object) -> None:
        """`release`, as a callback of the task that holds the ticket."""
        self.release()

    def release(self) -> None:
        """Leave the queue, or free the slot."""
        if self._released:
            return
        self._released = True
        if self.turn.done():
            self._slots.freed(time.monotonic() - (self._taken or self._asked))
        else:
            self.turn.cancel()
            self._slots.left()


class Slots:
    """Slots go to the largest priority first, then in order of arrival. For one event loop."""

    def __init__(self, capacity: int, max_queued: int) -> None:
        self.capacity = capacity
        self.running = 0
        self.queued = 0
        self._max_queued = max_queued
        self._waiting: list[tuple[int, int, Ticket]] = []
        self._order = itertools.count()
        self._mean_held_s = 1.0
        self._measured = False

    def enqueue(self, count: int, priority: int, deadline: float | None = None) -> list[Ticket]:
        """Draw `count` tickets, or none: raises EngineOverloaded with an estimate of when to come back.

        Refused is also what would, as long as slots were held of late, not begin before `deadline` (time.monotonic()).
        """
        room = self.capacity - self.running + self._max_queued - self.queued
        if count > room:
            rounds = (self.queued + count) / self.capacity
            retry = min(_MAX_RETRY_S, max(_MIN_RETRY_S, rounds * self._mean_held_s))
            raise EngineOverloaded(f"{self.running} requests run and {self.queued} wait", retry_after_s=retry)
        begins_s = max(0, self.running + self.queued + count - self.capacity) / self.capacity * self._mean_held_s
        late_s = 0.0 if deadline is None or not self._measured else begins_s - (deadline - time.monotonic())
        if late_s > 0:
            message = f"it would begin in about {begins_s:.0f} s, after its deadline; {self.queued} wait before it"
            raise EngineOverloaded(message, retry_after_s=min(_MAX_RETRY_S, max(_MIN_RETRY_S, late_s)))
        tickets = [Ticket(self) for _ in range(count)]
        for ticket in tickets:
            heapq.heappush(self._waiting, (-priority, next(self._order), ticket))
        self.queued += count
        self._hand_out()
        return tickets

    def freed(self, held_s: float) -> None:
        """A slot is free again; for Ticket."""
        self._measured = True
        self._mean_held_s += _WEIGHT * (held_s - self._mean_held_s)
        self.running -= 1
        self._hand_out()

    def left(self) -> None:
        """Somebody stopped waiting; for Ticket. The heap stays within twice the queue, however many give up."""
        self.queued -= 1
        if len(self._waiting) > 2 * self.queued + 16:
            self._waiting = [entry for entry in self._waiting if not entry[2].turn.done()]
            heapq.heapify(self._waiting)

    def _hand_out(self) -> None:
        while self._waiting and self.running < self.capacity:
            _, _, ticket = heapq.heappop(self._waiting)
            if not ticket.turn.done():
                self.queued -= 1
                self.running += 1
                ticket.turn.set_result(None)
