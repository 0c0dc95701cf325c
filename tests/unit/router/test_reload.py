"""The routing file is looked at every so often, and no change of it is missed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace

from router.adapters.reload import Reload
from router.adapters.routing_file import read
from tests.fakes.clock import MovingClock
from tests.unit.router.test_routing_file import GOOD


async def test_a_change_within_one_tick_of_the_files_time_is_seen(tmp_path: Path) -> None:
    """An editor empties the file and writes it, and a look in between must not be the last."""
    path = tmp_path / "router.yaml"
    path.write_text(GOOD)
    used: asyncio.Queue[str] = asyncio.Queue()
    router = SimpleNamespace(routing=read(path), use=lambda routing: used.put_nowait(routing.version))
    reload = Reload(path, router, 1.0, MovingClock())  # type: ignore[arg-type]  # what it uses of a router
    times = path.stat()
    path.write_text(GOOD.replace("pub", "another"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    watching = asyncio.create_task(reload.run())
    try:
        assert await asyncio.wait_for(used.get(), 20) == read(path).version
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
