"""API keys as the gateway reads them: a YAML list of {id, tenant, sha256}. The key itself is never in it."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import yaml

from mesh.yaml_source import FileErrors, YamlSource
from ops.failure import ExitCode, Failure
from ops.local.lock import locked
from ops.state import write_private

_PREFIX = "hr-"
# A change takes a few milliseconds.
_LOCK_S = 10.0
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key: a name to speak of it, whose it is, and the SHA-256 of what the client sends."""

    id: _Name
    tenant: _Name
    sha256: _Digest


class KeyStore:
    """The keys file. Every change replaces it in one step, so that the gateway never reads half of it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def list(self) -> tuple[StoredKey, ...]:
        """The keys in the file's order; none where there is no file. Raises Failure where it cannot be read."""
        if not self._path.exists():
            return ()
        try:
            source = YamlSource.read(self._path, private=True)
            return tuple(source.convert(list[StoredKey])) if source.root is not None else ()
        except FileErrors as error:
            raise Failure(
                f"not a list of {{id, tenant, sha256}}: {error}",
                "fix the file, or move it away and make new keys: headrace keys new",
                ExitCode.USAGE,
            ) from error

    def new(self, key_id: str, tenant: str) -> str:
        """Make a key and return it; it is shown this once. Raises Failure where the id is taken or malformed."""
        with self._locked():
            return self._add(key_id, tenant)

    def _add(self, key_id: str, tenant: str) -> str:
        keys = self.list()
        if any(key.id == key_id for key in keys):
            raise Failure(
                f"there is a key {key_id!r} already",
                f"choose another --id, or revoke it first: headrace keys revoke {key_id}",
                ExitCode.USAGE,
            )
        plain = _PREFIX + secrets.token_urlsafe(24)
        added = StoredKey(key_id, tenant, hashlib.sha256(plain.encode()).hexdigest())
        try:
            msgspec.convert(asdict(added), StoredKey)
        except msgspec.ValidationError as error:
            raise Failure(
                f"not a name for a key or a tenant: {error}",
                "use letters, digits, dots, dashes and underscores, at most 64",
                ExitCode.USAGE,
            ) from error
        self._write((*keys, added))
        return plain

    def revoke(self, key_id: str) -> None:
        """Take a key away. Raises Failure where there is none of that id."""
        with self._locked():
            self._remove(key_id)

    def _remove(self, key_id: str) -> None:
        keys = self.list()
        kept = tuple(key for key in keys if key.id != key_id)
        if len(kept) == len(keys):
            known = ", ".join(key.id for key in keys) or "none"
            raise Failure(f"no key {key_id!r}; there are: {known}", "see them: headrace keys list", ExitCode.USAGE)
        self._write(kept)

    def ensure(self, key_id: str, tenant: str, plain_file: Path) -> str:
        """The key kept in `plain_file`, made anew where the file is gone or the store does not know its content."""
        if plain_file.exists():
            plain = plain_file.read_text(encoding="utf-8").strip()
            digest = hashlib.sha256(plain.encode()).hexdigest()
            if any(key.sha256 == digest for key in self.list()):
                return plain
        if any(key.id == key_id for key in self.list()):
            self.revoke(key_id)
        plain = self.new(key_id, tenant)
        write_private(plain_file, plain + "\n")
        return plain

    def _locked(self) -> AbstractContextManager[None]:
        """Two that change the file at once would each write what it had read, without the other's key."""
        return locked(self._path.with_name(f".{self._path.name}.lock"), _LOCK_S, lambda _: None)

    def _write(self, keys: tuple[StoredKey, ...]) -> None:
        text = yaml.safe_dump([asdict(key) for key in keys], sort_keys=False)
        write_private(self._path, text)
