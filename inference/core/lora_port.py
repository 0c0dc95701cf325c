"""What an engine offers besides the port when it can load LoRA adapters while it serves."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


class AdapterNotThere(ValueError):
    """There is no such folder below the node's adapter folder."""


class AdapterNameTaken(ValueError):
    """The name stands for other content, which is loaded; it must be unloaded first."""


class TooManyAdapters(Exception):
    """As many are loaded as there may be."""


@runtime_checkable
class LoraHost(Protocol):
    """Cancelling a call leaves its work to be finished: nothing is half loaded, nothing stays behind."""

    async def load_adapter(self, name: str, path: str) -> None:
        """Load one; loading the same again is no error.

        Raises AdapterNotThere, AdapterNameTaken, TooManyAdapters; ValueError for a folder that is no fitting adapter.
        """
        ...

    async def unload_adapter(self, name: str) -> None:
        """Unload one, once nobody uses it; nobody new can, from now on. Raises AdapterNotFound."""
        ...
