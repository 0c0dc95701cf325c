"""Loaded LoRA adapters by name, and who uses them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.core.lora_port import AdapterNameTaken, AdapterNotThere, TooManyAdapters
from inference.core.port import AdapterNotFound

MAX_ADAPTERS = 64
_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(slots=True)
class _Loaded:
    content: str
    slot: int
    users: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class LoraRegistry:
    """Used on the event loop. `load` and `unload` run the runner's calls between two steps."""

    def __init__(
        self,
        folder: Path | None,
        load: Callable[[Path], asyncio.Future[int]],
        unload: Callable[[int], asyncio.Future[None]],
    ) -> None:
        self._folder = folder
        self._load = load
        self._unload = unload
        self._loaded: dict[str, _Loaded] = {}
        self._leaving = 0
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Adapters that a request may name."""
        return tuple(sorted(self._loaded))

    async def load_all(self) -> None:
        """Load each folder below the adapter folder that holds a PEFT adapter, by the folder's name."""
        if self._folder is not None:
            for config in sorted(self._folder.glob("*/adapter_config.json")):
                await self.load(config.parent.name, config.parent.name)

    async def load(self, name: str, path: str) -> None:
        """Load the adapter in `path`, below the adapter folder. See LoraHost.load_adapter."""
        if self._folder is None:
            raise ValueError("this node has no adapter folder")
        folder = self._folder.resolve()
        place = (folder / path).resolve()
        if not place.is_relative_to(folder) or place == folder:
            raise ValueError(f"{path!r} does not lie below the adapter folder")
        if not place.is_dir():
            raise AdapterNotThere(f"{path!r} is no folder below the adapter folder")
        await self._to_its_end(self._load_from(name, place))

    async def unload(self, name: str) -> None:
        """Wait until nobody uses it, then unload. See LoraHost.unload_adapter."""
        await self._to_its_end(self._leave(name))

    @contextlib.contextmanager
    def using(self, name: str | None) -> Iterator[int]:
        """The runner's slot of `name`, which stays loaded meanwhile; 0 for none. Raises AdapterNotFound."""
        if name is None:
            yield 0
            return
        loaded = self._loaded.get(name)
        if loaded is None:
            raise _unknown(name)
        loaded.users += 1
        try:
            yield loaded.slot
        finally:
            loaded.users -= 1
            if not loaded.users:
                loaded.idle.set()

    async def _load_from(self, name: str, place: Path) -> None:
        async with self._changing:
            # Also brings the files into the page cache, so that reading them between two steps is quick.
            content = await asyncio.to_thread(_content_of, place)
            known = self._loaded.get(name)
            if known is not None and known.content != content:
                raise AdapterNameTaken(f"adapter {name!r} is loaded with other content; unload it first")
            if known is not None:
                return
            if len(self._loaded) + self._leaving >= MAX_ADAPTERS:
                raise TooManyAdapters(f"{MAX_ADAPTERS} adapters are loaded, which is the most there may be")
            self._loaded[name] = _Loaded(content, await self._load(place))

    async def _leave(self, name: str) -> None:
        async with self._changing:
            loaded = self._loaded.pop(name, None)
        if loaded is None:
            raise _unknown(name)
        self._leaving += 1
        try:
            while loaded.users:
                loaded.idle.clear()
                await loaded.idle.wait()
            await self._unload(loaded.slot)
        finally:
            self._leaving -= 1

    async def _to_its_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Cancelling whoever waits does not cancel the work."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        await asyncio.shield(task)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked was told, or has left


def _content_of(place: Path) -> str:
    """The hash of an adapter's files; what is missing or cannot be read is left to whoever loads it."""
    found = hashlib.sha256()
    for name in _FILES:
        with contextlib.suppress(OSError), (place / name).open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def _unknown(name: str) -> AdapterNotFound:
    return AdapterNotFound(f"no adapter {name!r} is loaded")
