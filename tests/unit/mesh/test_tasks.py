"""Background tasks: whichever way one ends that should not, it is noticed."""

from __future__ import annotations

import asyncio

import prometheus_client
import pytest

from mesh.tasks import KeyedTasks, TaskFailed, TaskSet, spawn


async def forever() -> None:
    await asyncio.Event().wait()


async def raises() -> None:
    raise ValueError("broken")


async def returns() -> None:
    return


async def cancels_itself() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("work", "said"),
    [(raises, "broken"), (returns, "ended although"), (cancels_itself, "cancelled from within")],
)
async def test_a_task_that_ends_as_it_should_not_is_a_failure(work, said: str) -> None:
    seen: list[TaskFailed] = []
    before = prometheus_client.REGISTRY.get_sample_value("headrace_task_failures_total") or 0.0
    tasks = TaskSet(seen.append)
    tasks.start("other", forever(), ends=False)
    tasks.start("watched", work(), ends=False)
    async with asyncio.timeout(30):
        with pytest.raises(TaskFailed, match=f"watched: .*{said}"):
            await tasks.failed()
    assert len(seen) == 1
    assert prometheus_client.REGISTRY.get_sample_value("headrace_task_failures_total") == before + 1
    await tasks.close()
    assert len(tasks) == 0
    assert len(seen) == 1


async def test_what_is_ended_on_purpose_or_has_an_end_is_none() -> None:
    tasks = TaskSet()
    short = tasks.start("short", returns())
    long = tasks.start("long", forever(), ends=False)
    await short
    tasks.cancel(long)
    await tasks.close()
    assert tasks.failure is None
    assert len(tasks) == 0


async def test_keys_come_and_go_and_a_key_whose_work_ends_ends_the_whole() -> None:
    running: set[str] = set()

    async def work(key: str) -> None:
        running.add(key)
        try:
            if key == "ends":
                return
            await forever()
        finally:
            running.discard(key)

    keyed: KeyedTasks[str] = KeyedTasks(work)
    whole = asyncio.create_task(keyed.run())
    keyed.keep({"a", "b"})
    async with asyncio.timeout(30):
        while running != {"a", "b"}:
            await asyncio.sleep(0)
        keyed.keep({"b", "c"})
        while running != {"b", "c"}:
            await asyncio.sleep(0)
        keyed.keep({"b", "ends"})
        with pytest.raises(TaskFailed, match="ends: ended although"):
            await whole
    assert not running


async def test_what_a_short_task_raises_is_noticed_at_once_and_its_cancelling_is_not() -> None:
    before = prometheus_client.REGISTRY.get_sample_value("headrace_task_failures_total") or 0.0
    failing, waiting = spawn("failing", raises()), spawn("waiting", forever())
    waiting.cancel()
    await asyncio.wait([failing, waiting])
    # Callbacks of a task run on the turn after its end.
    await asyncio.sleep(0)
    assert prometheus_client.REGISTRY.get_sample_value("headrace_task_failures_total") == before + 1
