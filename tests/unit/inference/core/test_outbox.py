"""Events that wait for a writer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.outbox import Outbox

_MOST = 100


class _Source:
    """Gives sizes as events, and counts what was asked for."""

    def __init__(self, sizes: list[int], error: Exception | None = None) -> None:
        self.sizes = sizes
        self.error = error
        self.given = 0

    async def events(self) -> AsyncIterator[int]:
        for size in self.sizes:
            self.given += 1
            yield size
        if self.error is not None:
            raise self.error


async def _settled() -> None:
    """Let everything run that does not wait for somebody else."""
    for _ in range(300):
        await asyncio.sleep(0)


@given(st.lists(st.integers(1, 150), max_size=60), st.booleans())
def test_what_is_gathered_is_bounded_and_all_of_it_comes_in_order(sizes: list[int], slow: bool) -> None:
    """However slow the writer is, and however large the events are."""

    async def run() -> list[list[int]]:
        outbox = Outbox(_Source(sizes).events(), weigh=int, most=_MOST)
        taken = []
        while True:
            if slow:
                await _settled()
            if not (gathered := await outbox.take(0.0)):
                return taken
            taken.append(gathered)

    taken = asyncio.run(run())
    assert [size for gathered in taken for size in gathered] == sizes
    assert all(sum(gathered[:-1]) < _MOST for gathered in taken)


async def test_a_writer_that_takes_nothing_stops_the_producer() -> None:
    """It asks for nothing more, until there is room."""
    source = _Source([30] * 50)
    outbox = Outbox(source.events(), weigh=int, most=_MOST)
    await _settled()
    assert source.given == 4
    assert await outbox.take(0.0) == [30] * 4
    await _settled()
    assert source.given == 8
    await outbox.closed()
    assert source.given == 8


async def test_a_full_outbox_is_not_waited_for_to_gather_more() -> None:
    """Nothing can come before it is taken."""
    outbox = Outbox(_Source([_MOST, 1]).events(), weigh=int, most=_MOST)
    async with asyncio.timeout(20):
        assert await outbox.take(3600.0) == [_MOST]
        assert await outbox.take(0.0) == [1]
        assert await outbox.take(0.0) == []


async def test_an_error_comes_after_what_was_gathered() -> None:
    """Also from a producer that had to wait."""
    outbox = Outbox(_Source([60] * 3, ValueError("x")).events(), weigh=int, most=_MOST)
    assert await outbox.take(0.0)
    await _settled()
    assert await outbox.take(0.0) == [60]
    with pytest.raises(ValueError, match="x"):
        await outbox.take(0.0)
