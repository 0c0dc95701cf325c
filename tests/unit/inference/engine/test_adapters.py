"""What a node's loaded adapters hold to, whoever leaves in the middle."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from inference.adapters.torch.lora_registry import MAX_ADAPTERS, LoraRegistry
from inference.core.lora_port import AdapterNameTaken, AdapterNotThere, TooManyAdapters
from inference.core.port import AdapterNotFound


class Runner:
    """Loads and unloads when told to go on, as an engine does between two steps."""

    def __init__(self) -> None:
        self.slots: list[int] = []
        self.made = 0
        self.go = asyncio.Event()
        self.go.set()

    def load(self, path: Path) -> asyncio.Future[int]:
        async def later() -> int:
            await self.go.wait()
            self.made += 1
            self.slots.append(self.made)
            return self.made

        return asyncio.ensure_future(later())

    def unload(self, slot: int) -> asyncio.Future[None]:
        async def later() -> None:
            await self.go.wait()
            self.slots.remove(slot)

        return asyncio.ensure_future(later())


async def settled(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
async def runner() -> Runner:
    return Runner()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "same_as_a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(f'"{name[-1]}"')
    return tmp_path


@pytest.fixture
def registry(runner: Runner, folder: Path) -> LoraRegistry:
    return LoraRegistry(folder, runner.load, runner.unload)


async def test_a_name_stands_for_one_content(registry: LoraRegistry, runner: Runner, folder: Path) -> None:
    await registry.load("tone", "a")
    await registry.load("tone", "same_as_a")
    assert runner.slots == [1]
    with pytest.raises(AdapterNameTaken):
        await registry.load("tone", "b")
    (folder / "a" / "adapter_model.safetensors").write_bytes(b"trained anew")
    with pytest.raises(AdapterNameTaken):
        await registry.load("tone", "a")
    await registry.unload("tone")
    await registry.load("tone", "a")
    assert runner.slots == [2]
    for path in ("missing", "a/adapter_config.json"):
        with pytest.raises(AdapterNotThere):
            await registry.load("other", path)


async def test_a_load_whose_caller_leaves_is_finished(registry: LoraRegistry, runner: Runner) -> None:
    runner.go.clear()
    loading = asyncio.create_task(registry.load("tone", "a"))
    await settled(registry._changing.locked)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    runner.go.set()
    await settled(lambda: registry.names == ("tone",))
    await registry.unload("tone")
    assert runner.slots == []


async def test_an_unload_whose_caller_leaves_is_finished(registry: LoraRegistry, runner: Runner) -> None:
    await registry.load("tone", "a")
    with registry.using("tone") as slot:
        leaving = asyncio.create_task(registry.unload("tone"))
        await settled(lambda: registry.names == ())
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        with pytest.raises(AdapterNotFound), registry.using("tone"):
            pass
        # The same name again is another adapter, in a slot of its own.
        await registry.load("tone", "b")
        assert runner.slots == [slot, slot + 1]
    await settled(lambda: runner.slots == [slot + 1])


async def test_there_is_an_end_to_how_many(registry: LoraRegistry, runner: Runner) -> None:
    for i in range(MAX_ADAPTERS):
        await registry.load(f"tone-{i}", "a")
    with pytest.raises(TooManyAdapters):
        await registry.load("one more", "a")
    await registry.unload("tone-3")
    await registry.load("one more", "a")
    assert len(runner.slots) == MAX_ADAPTERS
