"""One command at a time changes what runs from a state folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ops.failure import Failure

_POLL_S: Final = 0.1


@contextmanager
def locked(file: Path, timeout_s: float, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock meanwhile; the kernel lets it go when its process ends, however it does.

    Says so once when another holds it. Raises Failure when that one still does after `timeout_s`.
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(handle, file, timeout_s, say)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, file: Path, timeout_s: float, say: Callable[[str], None]) -> None:
    deadline, said = time.monotonic() + timeout_s, False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(handle)
            if not said:
                say(f"waiting for another headrace command on {file.parent}{holder}")
                said = True
            if time.monotonic() > deadline:
                raise Failure(
                    f"another headrace command still works on {file.parent}{holder}",
                    "wait until it has ended, or stop it; then type it again",
                ) from None
            time.sleep(_POLL_S)
        else:
            return


def _holder(handle: int) -> str:
    text = os.pread(handle, 32, 0).decode("ascii", errors="replace").strip()
    return f" (pid {text})" if text.isdecimal() else ""
