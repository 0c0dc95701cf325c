"""The stack file as a source: read again whenever it changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from mesh import stack as stacks
from mesh.clock import Clock
from mesh.control.core.view import STACK, MeshView
from mesh.stack import Stack

_log = structlog.get_logger()
# A look at the file's status costs microseconds, works on every file system, and sees a file that was replaced.
POLL_S: Final = 0.2


class StackFile:
    """Follows a file and tells the view, then `on_stack`.

    What cannot be read or is wrong is reported, and the last good stack stays.
    """

    def __init__(self, path: Path, view: MeshView, on_stack: Callable[[Stack], None], clock: Clock) -> None:
        self._path = path
        self._view = view
        self._on_stack = on_stack
        self._clock = clock
        self._seen: tuple[int, ...] | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            self._look()
            await self._clock.sleep(POLL_S)

    def _look(self) -> None:
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            stack = stacks.load(self._path)
        except stacks.StackErrors as errors:
            _log.warning("stack.refused", problems=[str(p) for p in errors.problems])
            self._view.source_failed(STACK, "; ".join(str(p) for p in errors.problems))
            return
        self._view.take_stack(stack)
        self._on_stack(stack)

    def _state(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return status.st_mtime_ns, status.st_size, status.st_ino
