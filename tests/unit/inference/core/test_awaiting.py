"""What is said of a generation before its first event."""

from __future__ import annotations

import asyncio

import pytest

from inference.core import awaiting
from inference.core.awaiting import with_progress
from inference.core.generation_state import GenerationState, Progress, SignsOfLife, Stage

READING = Progress(Stage.PREFILL, 0.5)


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(awaiting, "FIRST_AFTER_S", 0.001)
    monkeypatch.setattr(awaiting, "EVERY_S", 0.001)


class Engine:
    """Gives its events once `go` is set."""

    def __init__(self, *events: str, error: Exception | None = None) -> None:
        self.go = asyncio.Event()
        self.closed = False
        self.state = GenerationState()
        self._events, self._error = events, error

    async def generate(self):
        try:
            await self.go.wait()
            for event in self._events:
                yield event
                await asyncio.sleep(0)
            if self._error is not None:
                raise self._error
        finally:
            self.closed = True


async def test_progress_comes_before_the_first_event_and_never_after():
    engine = Engine("a", "b")
    engine.state.attach(progress=lambda: READING)
    got = []
    async for event in with_progress(engine.generate(), engine.state):
        got.append(event)
        if len(got) == 3:
            engine.go.set()
    said = [event for event in got if event == READING]
    assert len(said) >= 3
    assert got == [*said, "a", "b"]
    assert engine.closed


@pytest.mark.parametrize("attached", [False, True])
async def test_an_engine_that_does_not_wait_says_nothing(attached):
    engine = Engine("a")
    asked = 0

    def progress() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            engine.go.set()

    if attached:
        engine.state.attach(progress=progress)
    else:
        engine.go.set()
    assert [event async for event in with_progress(engine.generate(), engine.state)] == ["a"]


async def test_what_the_engine_raises_is_raised():
    engine = Engine(error=ValueError("no"))
    engine.go.set()
    with pytest.raises(ValueError, match="no"):
        _ = [event async for event in with_progress(engine.generate(), engine.state)]


async def test_leaving_and_cancelling_close_the_engine():
    engine = Engine("a")
    engine.state.attach(progress=lambda: READING)
    events = with_progress(engine.generate(), engine.state)
    assert await anext(events) == READING
    await events.aclose()
    assert engine.closed
    engine = Engine("a")

    async def read() -> None:
        _ = [event async for event in with_progress(engine.generate(), engine.state)]

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.closed


def test_a_count_that_stands_still_is_no_sign_of_life():
    count = 0
    life = SignsOfLife(lambda: count)
    assert [life.moved(), life.moved()] == [True, False]
    count = 3
    assert [life.moved(), life.moved()] == [True, False]
