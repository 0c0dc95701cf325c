"""A provider's key, from the environment or from a mounted file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from mesh.config import Secret
from mesh.errors import Unavailable

_ACCOUNT_LETTERS: Final = 20


class Credentials:
    """Gives the key for each call. A file is read again when it was replaced: keys are rotated under running nodes."""

    def __init__(self, key: Secret, file: Path | None) -> None:
        self._key = key
        self._file = file
        self._seen: tuple[int, int] | None = None

    def check(self) -> None:
        """Raises ValueError where the file cannot be read or is empty."""
        try:
            self.key()
        except Unavailable as error:
            raise ValueError(error.message) from error

    def key(self) -> Secret:
        """The key; an empty one where none is needed. Raises Unavailable where the file gives none."""
        if self._file is None:
            return self._key
        try:
            status = self._file.stat()
            seen = (status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                self._key = Secret(self._file.read_text(encoding="utf-8").strip())
                self._seen = seen
        except (OSError, UnicodeDecodeError) as error:
            message = f"the key file {self._file} cannot be read: {type(error).__name__}"
            raise Unavailable(message, reason="PROVIDER_KEY_MISSING") from error
        if not self._key:
            raise Unavailable(f"the key file {self._file} is empty", reason="PROVIDER_KEY_MISSING")
        return self._key

    def account(self, base_url: str) -> str:
        """A word for the account that the key is of, from which the key cannot be told; the same wherever it is used.

        Without a key it stands for the server alone. Raises Unavailable as `key` does.
        """
        name = f"headrace account\0{base_url.rstrip('/').lower()}\0{self.key().reveal()}"
        return hashlib.sha256(name.encode()).hexdigest()[:_ACCOUNT_LETTERS]
