"""How each admitted choice wants its tokens drawn, as columns, so that a step reads them with one index each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.core.port import SamplingParams

RequestRows = NDArray[np.intp]
# Logits are divided by it and stay finite; a tenth of a thousandth of a logit decides, as at any lower one.
_COLDEST = 1e-5


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
    """One row a request row."""

    def __init__(self, request_rows: int) -> None:
        self.temperature = np.zeros(request_rows, np.float32)
        self.top_k = np.zeros(request_rows, np.int32)
        self.top_p = np.ones(request_rows, np.float32)
        self.min_p = np.zeros(request_rows, np.float32)
        self.seed = np.zeros(request_rows, np.uint64)
        self.stream = np.zeros(request_rows, np.int64)
        # The best alternatives to report for each token; -1: no log probabilities at all.
        self.logprobs = np.full(request_rows, -1, np.int32)
        # Rows whose token is not simply the largest of the logits that a grammar allows.
        self.special = np.zeros(request_rows, np.bool_)
        self.adjusted = np.zeros(request_rows, np.bool_)
        # Rows where what was drawn changes how the next token is drawn.
        self.penalized = np.zeros(request_rows, np.bool_)
        self._penalties = np.zeros((request_rows, 3), np.float32)
        self._seen: dict[int, SeenTokens] = {}
        self._bias: dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}

    def enter(
        self,
        request_row: int,
        params: SamplingParams,
        *,
        seed: int,
        stream: int,
        prompt: tuple[int, ...],
        emitted: tuple[int, ...],
    ) -> None:
        """Fill a row. `seed` is 64 bits; `stream` tells apart the choices of one request."""
        self.temperature[request_row] = max(params.temperature, _COLDEST) if params.temperature > 0 else 0.0
        self.top_k[request_row], self.top_p[request_row], self.min_p[request_row] = (
            params.top_k,
            params.top_p,
            params.min_p,
        )
        self.seed[request_row], self.stream[request_row] = seed, stream
        self.logprobs[request_row] = -1 if params.logprobs is None else params.logprobs
        penalties = params.repetition_penalty, params.frequency_penalty, params.presence_penalty
        self._penalties[request_row] = penalties
        if penalties != (1.0, 0.0, 0.0):
            self._seen[request_row] = SeenTokens(prompt, emitted)
        if params.logit_bias:
            ids, values = zip(*params.logit_bias.items(), strict=True)
            self._bias[request_row] = np.array(ids, np.int64), np.array(values, np.float32)
        self.penalized[request_row] = request_row in self._seen
        self.adjusted[request_row] = request_row in self._seen or request_row in self._bias
        self.special[request_row] = params.temperature > 0 or self.adjusted[request_row]

    def leave(self, request_row: int) -> None:
        """Free what a row holds beyond its columns."""
        self._seen.pop(request_row, None)
        self._bias.pop(request_row, None)

    def count(self, request_row: int, token: int) -> None:
        """Book a drawn token with the penalties."""
        seen = self._seen.get(request_row)
        if seen is not None:
            seen.add(token)

    def adjustments(self, request_rows: RequestRows) -> Adjustments | None:
        """What penalties and biases change in the logits of these rows; None when nothing."""
        rows = np.flatnonzero(self.adjusted[request_rows])
        if not len(rows):
            return None
        parts = [part for row in rows for part in self._parts(int(row), int(request_rows[row]))]
        row, token, repetition, shift = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Adjustments(row, token, repetition, shift)

    def _parts(self, row: int, request_row: int) -> Iterable[tuple[NDArray[Any], ...]]:
        """Penalties and bias may meet in one token: the entries are then merged into one."""
        ids, values = self._bias.get(request_row, (np.empty(0, np.int64), np.empty(0, np.float32)))
        seen = self._seen.get(request_row)
        repetition, frequency, presence = self._penalties[request_row]
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
