"""The keys file: a YAML list of {id, tenant, sha256}, read again whenever it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import prometheus_client
import structlog
import yaml

from gateway.core.keys import Caller, KeyRing, StoredKey
from mesh.clock import Clock

_log = structlog.get_logger()
_stale = prometheus_client.Gauge(
    "headrace_gateway_keys_stale", "1 while the keys file cannot be used and the keys read before it hold."
)
_LARGEST_BYTES: Final = 16 * 1024 * 1024
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class KeysFileError(Exception):
    """The file cannot be used; `problems` says why, without showing what is in it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    id: _Name
    tenant: _Name
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


def read(path: Path) -> KeyRing:
    """The keys in the file. Raises KeysFileError with everything that is wrong with it."""
    try:
        text = _text(path)
        entries = msgspec.convert(_parse(text), list[_Entry])
    except OSError as error:
        raise KeysFileError([f"{path}: cannot be read: {error.strerror}"]) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        # A parser's message quotes the file, which may hold what somebody took for the place of a key.
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise KeysFileError([f"{path}: is not YAML{where}"]) from error
    except msgspec.ValidationError as error:
        raise KeysFileError([f"{path}: is not a list of {{id, tenant, sha256}}: {error}"]) from error
    problems = [*_twice(path, "id", [e.id for e in entries]), *_twice(path, "sha256", [e.sha256 for e in entries])]
    if problems:
        raise KeysFileError(problems)
    return KeyRing(StoredKey(Caller(e.id, e.tenant), bytes.fromhex(e.sha256)) for e in entries)


class KeysReload:
    """Looks at the file every so often. A bad new file is refused, and the keys read before it stay in force."""

    def __init__(self, path: Path, use: Callable[[KeyRing], None], interval_s: float, clock: Clock) -> None:
        self._path = path
        self._use = use
        self._interval_s = interval_s
        self._clock = clock
        self._seen = self._stamp()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._clock.sleep(self._interval_s)
            stamp = await asyncio.to_thread(self._stamp)
            if stamp != self._seen:
                self._seen = stamp
                await self._load()

    async def _load(self) -> None:
        try:
            keys = await asyncio.to_thread(read, self._path)
        except KeysFileError as error:
            _stale.set(1)
            _log.error("keys.refused", problems=error.problems)
            return
        self._use(keys)
        _stale.set(0)
        _log.info("keys.loaded")

    def _stamp(self) -> tuple[int, int, int]:
        try:
            stat = self._path.stat()
        except OSError:
            return 0, 0, 0
        return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _text(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(_LARGEST_BYTES + 1)
    if len(raw) > _LARGEST_BYTES:
        raise KeysFileError([f"{path}: larger than {_LARGEST_BYTES} bytes"])
    return raw.decode()


def _parse(text: str) -> Any:
    loaded = yaml.safe_load(text)
    # No keys at all, after the last one was revoked, is a state like any other: nobody gets in.
    return [] if loaded is None else loaded


def _twice(path: Path, name: str, values: list[str]) -> list[str]:
    seen: set[str] = set()
    problems = []
    for i, value in enumerate(values):
        if value in seen:
            problems.append(f"{path}: [{i}].{name}: is there twice")
        seen.add(value)
    return problems
