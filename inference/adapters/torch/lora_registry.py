"""Loaded LoRA adapters by name, and who uses them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from inference.core.port import AdapterNotFound

from .loading.errors import AdapterMismatch


@dataclass(slots=True)
class _Loaded:
    path: Path
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
        self._changing = asyncio.Lock()

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
        """Load the adapter in `path`, below the adapter folder. Loading the same again is no error.

        Raises ValueError when the path lies elsewhere or holds no fitting adapter, or the name stands for another.
        """
        if self._folder is None:
            raise ValueError("this node has no adapter folder")
        folder = self._folder.resolve()
        place = (folder / path).resolve()
        if not place.is_relative_to(folder) or place == folder:
            raise ValueError(f"{path!r} does not lie below the adapter folder")
        async with self._changing:
            known = self._loaded.get(name)
            if known is not None and known.path != place:
                raise AdapterMismatch(f"adapter {name!r} is loaded already, from another folder; unload it first")
            if known is None:
                self._loaded[name] = _Loaded(place, await self._load(place))

    async def unload(self, name: str) -> None:
        """Unload once nobody uses it any more; nobody new can, from now on. Raises AdapterNotFound."""
        async with self._changing:
            loaded = self._loaded.pop(name, None)
        if loaded is None:
            raise _unknown(name)
        while loaded.users:
            loaded.idle.clear()
            await loaded.idle.wait()
        await self._unload(loaded.slot)

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


def _unknown(name: str) -> AdapterNotFound:
    return AdapterNotFound(f"no adapter {name!r} is loaded")
