"""Breaking and healing: in which order, from when on it counts, and what a failure leaves."""

from __future__ import annotations

import pytest

from ops.drills.fault_injection import broken
from ops.failure import Failure


class _Fault:
    """Takes a second to be broken; the clock is its own."""

    now = 0.0

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.healed = 0

    async def inject(self) -> None:
        _Fault.now += 1.0
        if self.fails:
            raise Failure("cannot be broken", "leave it")

    async def heal(self) -> None:
        self.healed += 1


@pytest.fixture(autouse=True)
def clock() -> None:
    _Fault.now = 7.0


async def test_a_fault_counts_from_before_it_is_there() -> None:
    """Whoever notices it while it is still being made has noticed it."""
    faults = [_Fault(), _Fault()]
    async with broken(faults, lambda: _Fault.now) as began:
        assert (began, _Fault.now) == (7.0, 9.0)
        assert [one.healed for one in faults] == [0, 0]
    assert [one.healed for one in faults] == [1, 1]


async def test_what_was_broken_is_healed_when_the_next_thing_cannot_be() -> None:
    """So is that itself: it may be half broken."""
    faults = [_Fault(), _Fault(fails=True)]
    with pytest.raises(Failure, match="cannot be broken"):
        async with broken(faults, lambda: _Fault.now):
            pytest.fail("nothing is played on half a fault")
    assert [one.healed for one in faults] == [1, 1]
