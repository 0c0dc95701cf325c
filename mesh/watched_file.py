"""The one way to follow a file: a good new one comes into force, a bad one is refused and the one before stays.

That a file is refused shows in the log, in `headrace_file_refused_since_seconds`, and in the process's readiness.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar, get_args

import prometheus_client
import structlog

from mesh.clock import SYSTEM, Clock
from mesh.yaml_source import FileErrors, Problem, Reason

T = TypeVar("T")
_log = structlog.get_logger()
_refused_since = prometheus_client.Gauge(
    "headrace_file_refused_since_seconds",
    "Since when, in seconds since the epoch, a changed file is refused and the one before it holds; 0: it is in force.",
    ("file", "reason"),
)
_loads = prometheus_client.Counter("headrace_file_loads", "Times that a file was read, by result.", ("file", "result"))
_REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
_Stamp = tuple[tuple[str, int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that is not in force. `since` is in seconds since the epoch."""

    since: float
    kind: Reason
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.problems)


class WatchedFile(Generic[T]):
    """One file, read by `read`, which raises FileErrors for whatever is wrong with it.

    `beside` names other files that a value was made from, and which are therefore followed as well.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        read: Callable[[Path], T],
        *,
        interval_s: float,
        beside: Callable[[T], Iterable[Path]] = lambda _: (),
        clock: Clock = SYSTEM,
    ) -> None:
        self.name = name
        self.path = path
        # Why the newest file is not in force; None: it is.
        self.refused: Refusal | None = None
        self._read = read
        self._interval_s = interval_s
        self._beside = beside
        self._clock = clock
        self._paths: tuple[Path, ...] = (path,)
        self._seen: _Stamp = ()
        self._empty: _Stamp = ()
        # What was said about the file as it is, and need not be said again.
        self._said: Refusal | None = None
        self._show(None)

    def load(self) -> T:
        """The file as it is now, for a process that starts. Raises FileErrors."""
        self._seen = self._stamp()
        value = self._checked()
        self._follow(value)
        return value

    async def run(self, use: Callable[[T], None], refuse: Callable[[Refusal], None] = lambda _: None) -> None:
        """Hand each good new value to `use`, and why there is none to `refuse`, until cancelled.

        `refuse` is called for each bad file that comes, and when the reason changes; the next `use` ends it.
        """
        while True:
            await self._clock.sleep(self._interval_s)
            stamp = await asyncio.to_thread(self._stamp)
            # What could not be read may be readable now, although nothing about the file has changed.
            unreadable = self.refused is not None and self.refused.kind == "unreadable"
            if stamp != self._seen and _is_empty(stamp) and stamp != self._empty:
                # Mostly a file that is being written at this moment: believed when it is still so at the next look.
                self._empty = stamp
            elif stamp != self._seen:
                self._seen = stamp
                self._said = None
                await self._reload(use, refuse)
            elif unreadable:
                self._said = self.refused
                await self._reload(use, refuse)

    async def _reload(self, use: Callable[[T], None], refuse: Callable[[Refusal], None]) -> None:
        try:
            value = await asyncio.to_thread(self._checked)
            self._use(value, use)
        except FileErrors as errors:
            since = self.refused.since if self.refused else self._clock.wall()
            refusal = Refusal(since, errors.kind, tuple(errors.problems))
            if refusal != self._said:
                self._show(refusal)
                _loads.labels(self.name, errors.kind).inc()
                _log.error("file.refused", file=self.name, problems=errors.problems)
                refuse(refusal)
            return
        self._follow(value)
        self._show(None)
        _loads.labels(self.name, "ok").inc()
        _log.info("file.loaded", file=self.name)

    def _checked(self) -> T:
        try:
            return self._read(self.path)
        except FileErrors:
            raise
        except Exception as error:
            # A defect of the reader's is no reason to end a process that has a good file.
            raise self._defect("read", error) from error

    def _use(self, value: T, use: Callable[[T], None]) -> None:
        try:
            use(value)
        except Exception as error:
            raise self._defect("used", error) from error

    def _defect(self, what: str, error: Exception) -> FileErrors:
        # The error's own words may quote the file.
        _log.error("file.defect", file=self.name, exc_info=error)
        said = f"cannot be {what}: {type(error).__name__}; the log has more"
        return FileErrors([Problem(str(self.path), 0, said)], "defect")

    def _follow(self, value: T) -> None:
        self._paths = (self.path, *sorted(set(self._beside(value))))

    def _show(self, refusal: Refusal | None) -> None:
        self.refused = refusal
        for reason in _REASONS:
            since = refusal.since if refusal is not None and refusal.kind == reason else 0.0
            _refused_since.labels(self.name, reason).set(since)

    def _stamp(self) -> _Stamp:
        return tuple(_stat(path) for path in self._paths)


def _is_empty(stamp: _Stamp) -> bool:
    return any(inode and not size for _, _, inode, size, _ in stamp)


def _stat(path: Path) -> tuple[str, int, int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return str(path), 0, 0, 0, 0
    # A file that is written twice within a tick of the kernel's clock has one time for both; a change of who may read
    # it changes only the last.
    return str(path), stat.st_mtime_ns, stat.st_ino, stat.st_size, stat.st_ctime_ns
