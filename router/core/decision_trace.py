"""Why a request was answered as it was: steps noted as they happen, put into words only when somebody asks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from headrace.common.v1 import generation_pb2
from mesh.clock import Clock
from router.core.fleet import Candidate

_MAX_STEPS: Final = 200
_MAX_NAMED: Final = 5


class Decision(NamedTuple):
    """One decision. Seconds since the request arrived."""

    at: float
    what: str
    detail: str


class DecisionTrace:
    """The steps of one request, at most 200."""

    __slots__ = ("_clock", "_noted", "_started")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.monotonic()
        self._noted: list[tuple[float, str, str | Callable[[], str]]] = []

    def now(self) -> float:
        """Seconds since the request arrived."""
        return self._clock.monotonic() - self._started

    def note(self, what: str, detail: str | Callable[[], str]) -> None:
        """Note a step; a detail that takes work to say is given as a function."""
        if len(self._noted) < _MAX_STEPS:
            self._noted.append((self.now(), what, detail))

    def dropped(self, name: str, before: Sequence[Candidate], after: Sequence[Candidate]) -> None:
        """Note whom a filter took out."""
        self.note(f"filter.{name}", lambda: f"took out {_named([c.key for c in before if c not in after])}")

    def scored(self, candidates: Sequence[Candidate], totals: Sequence[float], winner: int) -> None:
        """Note the scores, and who was picked."""

        def said() -> str:
            best = sorted(zip(totals, candidates, strict=True), key=lambda pair: -pair[0])
            return f"{candidates[winner].key} of {_named([f'{c.key}={total:.3f}' for total, c in best])}"

        self.note("pick", said)

    def __iter__(self) -> Iterator[Decision]:
        for at, what, detail in self._noted:
            yield Decision(at, what, detail if isinstance(detail, str) else detail())


class Recent:
    """The last requests, for Explain. Bounded; the oldest are forgotten."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._entries: OrderedDict[str, tuple[DecisionTrace, Callable[[], generation_pb2.Disclosure]]] = OrderedDict()

    def add(self, request_id: str, trace: DecisionTrace, disclosure: Callable[[], generation_pb2.Disclosure]) -> None:
        """Remember a request; a second one of the same id replaces the first."""
        self._entries[request_id] = (trace, disclosure)
        self._entries.move_to_end(request_id)
        while len(self._entries) > self._maximum:
            self._entries.popitem(last=False)

    def settle(self, request_id: str, disclosure: generation_pb2.Disclosure) -> None:
        """The request is over: keep its last word, and let go of all that it held."""
        entry = self._entries.get(request_id)
        if entry is not None:
            last = generation_pb2.Disclosure.FromString(disclosure.SerializeToString())
            self._entries[request_id] = (entry[0], lambda: last)

    def find(self, request_id: str) -> tuple[DecisionTrace, generation_pb2.Disclosure] | None:
        """What is remembered of a request."""
        entry = self._entries.get(request_id)
        return (entry[0], entry[1]()) if entry else None


def _named(names: Sequence[str]) -> str:
    rest = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")
