"""The keys file: a YAML list of {id, tenant, sha256}. Errors never show what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec

from gateway.core.keys import Caller, KeyRing, StoredKey
from mesh.yaml_source import YamlSource

_MAX_BYTES: Final = 16 * 1024 * 1024
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    id: _Name
    tenant: _Name
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


def read(path: Path) -> KeyRing:
    """The keys in the file. Raises FileErrors with everything that is wrong with it."""
    source = YamlSource.read(path, private=True, max_bytes=_MAX_BYTES)
    data = source.data
    if data is None and not source.found:
        # No keys at all, after the last one was revoked, is a state like any other: nobody gets in.
        return KeyRing(())
    if not isinstance(data, list):
        source.note((), "is not a list of {id, tenant, sha256}")
        data = []
    entries = [source.take(item, _Entry, (i,)) for i, item in enumerate(data)]
    source.finish()
    for name in ("id", "sha256"):
        _note_twice(source, name, [getattr(entry, name) for entry in entries])
    source.finish()
    return KeyRing(StoredKey(Caller(e.id, e.tenant), bytes.fromhex(e.sha256)) for e in entries)


def _note_twice(source: YamlSource, name: str, values: list[str]) -> None:
    seen: set[str] = set()
    for i, value in enumerate(values):
        if value in seen:
            source.note((i, name), "is there twice")
        seen.add(value)
