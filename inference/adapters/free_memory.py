"""How much memory this process may still take."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def free_host_bytes() -> int:
    """What the machine has left, or the container, whichever is less."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    host = _meminfo("MemAvailable") or pages
    limit, used = _number(_CGROUP / "memory.max"), _number(_CGROUP / "memory.current")
    return host if limit is None or used is None else min(host, limit - used)


def _meminfo(field: str) -> int | None:
    file = Path("/proc/meminfo")
    if file.exists():
        for line in file.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return None


def _number(file: Path) -> int | None:
    text = file.read_text().strip() if file.exists() else "max"
    return int(text) if text.isdigit() else None
