"""A deadline is one point in time, however often it is asked."""

from mesh.clock import Deadline


class MovedClock:
    """Time that stands until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_a_deadline_counts_down_and_stops_at_zero() -> None:
    clock = MovedClock()
    deadline = Deadline(2.0, clock)
    assert deadline.left() == 2.0
    assert deadline.cap(5.0) == 2.0
    assert deadline.cap(0.5) == 0.5
    await clock.sleep(3.0)
    assert deadline.passed()
    assert deadline.left() == 0.0
