"""When snapshots go out, and which."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from mesh.clock import SYSTEM
from mesh.control.core.model import Fault, Snapshot
from mesh.control.core.publisher import WINDOW_S, Publisher
from mesh.control.core.view import CONSUL, STACK, MeshView
from mesh.control.core.xds.build import build_resources
from mesh.control.core.xds.resources import ResourceSet

from .builders import HEALTHY, snapshot, stack


class HeldClock:
    """Sleep lasts until the test ends it."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[float] = asyncio.Queue()
        self.over = asyncio.Event()

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 7.0

    async def sleep(self, seconds: float) -> None:
        self.asked.put_nowait(seconds)
        await self.over.wait()
        self.over.clear()


def render(of: Snapshot) -> ResourceSet:
    return build_resources(of, 100, faults_on=False)


@contextlib.asynccontextmanager
async def running(publisher: Publisher) -> AsyncIterator[None]:
    task = asyncio.create_task(publisher.run())
    try:
        async with asyncio.timeout(30):
            yield
    finally:
        task.cancel()


async def test_the_first_change_goes_at_once_and_a_burst_behind_it_as_one() -> None:
    clock, mesh = HeldClock(), [snapshot(stack(small=1))]
    publisher = Publisher(lambda: mesh[-1], render, clock)
    async with running(publisher):
        publisher.touch()
        first = await publisher.changed()
        assert (first.snapshot, first.wall) == (mesh[0], 7.0)
        assert await clock.asked.get() == WINDOW_S
        waiting = asyncio.create_task(publisher.changed(first))
        for count in (2, 3, 4):
            mesh.append(snapshot(stack(small=count)))
            publisher.touch()
            await asyncio.sleep(0)
        assert publisher.current is first
        clock.over.set()
        assert (await waiting).snapshot is mesh[-1]


async def test_equal_contents_and_nothing_at_all_are_not_published() -> None:
    mesh: list[Snapshot | None] = [None]
    publisher = Publisher(lambda: mesh[-1], render, SYSTEM)
    publisher.flush()
    assert publisher.current is None
    mesh.append(snapshot(stack(small=1)))
    publisher.flush()
    first = publisher.current
    mesh.append(snapshot(stack(small=1)))
    publisher.flush()
    assert publisher.current is first is not None


async def test_what_is_not_consistent_leaves_the_last_one_in_force() -> None:
    # A fault needs a filter, and faults are switched off here.
    mesh = [snapshot(stack(small=1)), snapshot(stack(small=1), faults=(Fault("f", "small", abort_code=14),))]
    publisher = Publisher(lambda: mesh[0], render, SYSTEM)
    publisher.flush()
    first = publisher.current
    del mesh[0]
    publisher.flush()
    assert publisher.current is first


async def test_a_slow_reader_skips_to_the_newest() -> None:
    mesh = [snapshot(stack(small=i)) for i in range(4)]
    publisher = Publisher(lambda: mesh[0], render, SYSTEM)
    publisher.flush()
    updates = publisher.updates()
    assert (await anext(updates)).snapshot is mesh[0]
    for _ in range(3):
        del mesh[0]
        publisher.flush()
    assert (await anext(updates)).snapshot is mesh[0]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(updates), 0.01)


def view(consul: bool, **counts: int) -> tuple[MeshView, list[int]]:
    changes: list[int] = []
    return MeshView(stack(**counts), SYSTEM, lambda: changes.append(1), consul=consul), changes


def test_the_view_is_complete_once_everyone_was_looked_at() -> None:
    mesh, changes = view(False, small=2)
    mesh.take_verdict("small-0", HEALTHY)
    assert not mesh.complete
    mesh.take_verdict("small-1", HEALTHY)
    assert (mesh.complete, len(changes)) == (True, 2)
    by_consul, _ = view(True, small=2, none=0)
    by_consul.take_registered("small", ())
    assert not by_consul.complete
    by_consul.take_registered("none", ())
    assert by_consul.complete


def test_a_source_that_fails_keeps_what_it_said_and_is_reported_once() -> None:
    mesh, changes = view(True, small=1)
    replicas = snapshot(stack(small=1)).services[0].replicas
    mesh.take_registered("small", replicas)
    before = mesh.snapshot()
    assert {s.name: s.alive for s in before.sources} == {STACK: True, CONSUL: True}
    seen = len(changes)
    mesh.source_failed(CONSUL, "gone")
    mesh.source_failed(CONSUL, "gone")
    assert len(changes) == seen + 1
    after = mesh.snapshot()
    assert after.services == before.services
    assert {s.name: (s.alive, s.error) for s in after.sources}[CONSUL] == (False, "gone")
    assert after.version != before.version


def test_what_leaves_the_stack_leaves_the_view() -> None:
    mesh, _ = view(False, small=2)
    mesh.take_verdict("small-1", HEALTHY)
    mesh.take_stack(stack(small=1))
    mesh.take_stack(stack(small=2))
    (service,) = mesh.snapshot().services
    assert [r.healthy for r in service.replicas] == [False, False]
    registered, _ = view(True, small=1)
    registered.take_registered("nobody", snapshot(stack(small=1)).services[0].replicas)
    assert registered.registered("nobody") == ()
