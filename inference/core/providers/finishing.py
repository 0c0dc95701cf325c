"""The choices of one answer, and whether each of them has come to its end."""

from __future__ import annotations

from headrace.common.v1.generation_pb2 import ChoiceDelta, FinishReason
from inference.core.providers import failures


class Choices:
    """Holds back the finish reasons until the stream has ended as it should."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._finish: dict[int, FinishReason.ValueType] = {}
        self.progress = 0

    def gained(self) -> None:
        """The model gave a sign of work."""
        self.progress += 1

    def checked(self, index: int) -> int:
        """A choice's index as the provider gave it. Raises MeshError where nobody asked for that choice."""
        if not 0 <= index < self._expected:
            raise failures.malformed(f"choice {index} of {self._expected}")
        return index

    def finish(self, index: int, reason: FinishReason.ValueType) -> None:
        """A choice is over."""
        self._finish[self.checked(index)] = reason
        self.gained()

    @property
    def all_finished(self) -> bool:
        """Whether every choice is over."""
        return len(self._finish) == self._expected

    def end(self) -> list[ChoiceDelta]:
        """The deltas with the finish reasons. Raises MeshError where one is missing."""
        if not self.all_finished:
            raise failures.ended_early("a finish reason")
        return [ChoiceDelta(index=index, finish_reason=reason) for index, reason in sorted(self._finish.items())]
