"""What an engine offers besides the port when it can load LoRA adapters while it serves."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class LoraHost(Protocol):
    """Raises AdapterNotFound for an unknown name, ValueError or OSError for a folder that is no fitting adapter."""

    async def load_adapter(self, name: str, path: str) -> None:
        """Load one; loading the same again is no error."""
        ...

    async def unload_adapter(self, name: str) -> None:
        """Unload one, once nobody uses it."""
        ...
