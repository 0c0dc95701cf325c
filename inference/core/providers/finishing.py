"""The choices of one answer, and whether each of them has come to its end."""

from __future__ import annotations

from headrace.common.v1.generation_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_TOOL_CALLS,
    ChoiceDelta,
    FinishReason,
)
from inference.core.providers import failures


class Choices:
    """Holds back the finish reasons until the stream has ended as it should.

    Whether a choice ended with calls is told by its calls: servers say `stop` beside some, and `tool_calls` without.
    """

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._finish: dict[int, FinishReason.ValueType] = {}
        self._called: set[int] = set()
        self.progress = 0

    def gained(self) -> None:
        """The model gave a sign of work."""
        self.progress += 1

    def checked(self, index: int) -> int:
        """A choice's index as the provider gave it. Raises MeshError where nobody asked for that choice."""
        if not 0 <= index < self._expected:
            raise failures.Malformed(f"choice {index} of {self._expected}")
        return index

    def called(self, index: int) -> None:
        """A choice calls a tool."""
        self._called.add(index)

    def finish(self, index: int, reason: FinishReason.ValueType) -> None:
        """A choice is over."""
        self._finish[self.checked(index)] = reason
        self.gained()

    @property
    def all_finished(self) -> bool:
        """Whether every choice is over."""
        return len(self._finish) == self._expected

    def cut_short(self, index: int) -> bool:
        """Whether a choice has not come to an end of its own."""
        return self._finish.get(index, FINISH_REASON_LENGTH) == FINISH_REASON_LENGTH

    def end(self) -> list[ChoiceDelta]:
        """The deltas with the finish reasons. Raises MeshError where one is missing."""
        if not self.all_finished:
            raise failures.ended_early("a finish reason")
        return [ChoiceDelta(index=index, finish_reason=self._reason(index)) for index in sorted(self._finish)]

    def cut(self) -> list[ChoiceDelta]:
        """The same where the node ends the answer: choices that are not over end for their length."""
        for index in range(self._expected):
            self._finish.setdefault(index, FINISH_REASON_LENGTH)
        return self.end()

    def _reason(self, index: int) -> FinishReason.ValueType:
        reason = self._finish[index]
        if reason not in (FINISH_REASON_STOP, FINISH_REASON_TOOL_CALLS):
            return reason
        return FINISH_REASON_TOOL_CALLS if index in self._called else FINISH_REASON_STOP
