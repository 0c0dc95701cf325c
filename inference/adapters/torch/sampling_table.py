"""How each admitted choice wants its tokens drawn, as columns, so that a step reads them with one index each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.core.port import SamplingParams

Tickets = NDArray[np.intp]


class SeenTokens:
    """The distinct tokens of one choice, prompt included, and how often each stands in its answer."""

    def __init__(self, prompt: Iterable[int], answer: Iterable[int]) -> None:
        self._place = {token: i for i, token in enumerate(dict.fromkeys(prompt))}
        self.ids = np.array(list(self._place), np.int64)
        self.counts = np.zeros(len(self.ids), np.float32)
        for token in answer:
            self.add(token)

    def add(self, token: int) -> None:
        """Count one token of the answer."""
        place = self._place.get(token)
        if place is None:
            place = self._place[token] = len(self._place)
            if place >= len(self.ids):
                room = max(64, 2 * place)
                self.ids = np.resize(self.ids, room)
                self.counts = np.concatenate((self.counts, np.zeros(room - len(self.counts), np.float32)))
            self.ids[place] = token
        self.counts[place] += 1

    def __len__(self) -> int:
        return len(self._place)


@dataclass(frozen=True, slots=True)
class Adjustments:
    """Sparse changes to a step's logits: entry i is about logit [row[i], token[i]]."""

    row: NDArray[np.int64]
    token: NDArray[np.int64]
    # x becomes (x / repetition if x > 0 else x * repetition) + shift.
    repetition: NDArray[np.float32]
    shift: NDArray[np.float32]


class SamplingTable:
    """One row a ticket."""

    def __init__(self, tickets: int) -> None:
        self.temperature = np.zeros(tickets, np.float32)
        self.top_k = np.zeros(tickets, np.int32)
        self.top_p = np.ones(tickets, np.float32)
        self.min_p = np.zeros(tickets, np.float32)
        self.seed = np.zeros(tickets, np.uint64)
        self.stream = np.zeros(tickets, np.int64)
        # The best alternatives to report for each token; -1: no log probabilities at all.
        self.logprobs = np.full(tickets, -1, np.int32)
        # Rows whose token is not simply the largest of the logits that a grammar allows.
        self.special = np.zeros(tickets, np.bool_)
        self.adjusted = np.zeros(tickets, np.bool_)
        # Rows where what was drawn changes how the next token is drawn.
        self.penalized = np.zeros(tickets, np.bool_)
        self._penalties = np.zeros((tickets, 3), np.float32)
        self._seen: dict[int, SeenTokens] = {}
        self._bias: dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}

    def enter(
        self,
        ticket: int,
        params: SamplingParams,
        *,
        seed: int,
        stream: int,
        prompt: tuple[int, ...],
        emitted: tuple[int, ...],
    ) -> None:
        """Fill a row. `seed` is 64 bits; `stream` tells apart the choices of one request."""
        self.temperature[ticket] = params.temperature
        self.top_k[ticket], self.top_p[ticket], self.min_p[ticket] = params.top_k, params.top_p, params.min_p
        self.seed[ticket], self.stream[ticket] = seed, stream
        self.logprobs[ticket] = -1 if params.logprobs is None else params.logprobs
        penalties = params.repetition_penalty, params.frequency_penalty, params.presence_penalty
        self._penalties[ticket] = penalties
        if penalties != (1.0, 0.0, 0.0):
            self._seen[ticket] = SeenTokens(prompt, emitted)
        if params.logit_bias:
            ids, values = zip(*params.logit_bias.items(), strict=True)
            self._bias[ticket] = np.array(ids, np.int64), np.array(values, np.float32)
        self.penalized[ticket] = ticket in self._seen
        self.adjusted[ticket] = ticket in self._seen or ticket in self._bias
        self.special[ticket] = params.temperature > 0 or self.adjusted[ticket]

    def leave(self, ticket: int) -> None:
        """Free what a row holds beyond its columns."""
        self._seen.pop(ticket, None)
        self._bias.pop(ticket, None)

    def count(self, tickets: Tickets, tokens: NDArray[np.int32]) -> None:
        """Book drawn tokens, one for each ticket, with the penalties."""
        if self._seen:
            for ticket, token in zip(tickets.tolist(), tokens.tolist(), strict=True):
                if ticket in self._seen:
                    self._seen[ticket].add(token)

    def adjustments(self, tickets: Tickets) -> Adjustments | None:
        """What penalties and biases change in the logits of these rows; None when nothing."""
        rows = np.flatnonzero(self.adjusted[tickets])
        if not len(rows):
            return None
        parts = [part for row in rows for part in self._parts(int(row), int(tickets[row]))]
        row, token, repetition, shift = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Adjustments(row, token, repetition, shift)

    def _parts(self, row: int, ticket: int) -> Iterable[tuple[NDArray[Any], ...]]:
        """Penalties and bias may meet in one token: the entries are then merged into one."""
        ids, values = self._bias.get(ticket, (np.empty(0, np.int64), np.empty(0, np.float32)))
        seen = self._seen.get(ticket)
        repetition, frequency, presence = self._penalties[ticket]
        if seen is not None:
            known, counts = seen.ids[: len(seen)], seen.counts[: len(seen)]
            shift = -frequency * counts - presence * (counts > 0)
            if len(ids):
                order = np.argsort(known)
                place = order[np.searchsorted(known, ids, sorter=order).clip(max=len(known) - 1)]
                both = known[place] == ids
                shift[place[both]] += values[both]
                ids, values = ids[~both], values[~both]
            yield np.full(len(known), row), known, np.full(len(known), repetition, np.float32), shift
        yield np.full(len(ids), row), ids, np.ones(len(ids), np.float32), values
