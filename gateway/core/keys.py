"""API keys: who may ask, and for which tenant.

A key is random, of 192 bits or more, so its plain SHA-256 tells nothing that could be guessed back: a slow password
hash would cost milliseconds a request and protect nothing more.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mesh.errors import Unauthenticated

# Longer than any key; hashing megabytes of header for nothing is refused.
_MAX_KEY: Final = 512
_NOBODY: Final = b"\0" * 32


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the key's name and the tenant it belongs to."""

    key_id: str
    tenant: str


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key as the keys file has it; `digest` is the SHA-256 of what the client sends."""

    caller: Caller
    digest: bytes


class KeyRing:
    """An immutable set of keys."""

    def __init__(self, keys: Iterable[StoredKey]) -> None:
        # Two bytes of the digest choose the few keys that are compared: they tell nothing about a key.
        self._buckets: dict[bytes, list[StoredKey]] = {}
        for key in keys:
            self._buckets.setdefault(key.digest[:2], []).append(key)

    def find(self, plain: str) -> Caller:
        """Whose key this is. Compares in constant time; raises Unauthenticated for what is nobody's."""
        if len(plain) <= _MAX_KEY:
            digest = hashlib.sha256(plain.encode(errors="surrogateescape")).digest()
            found: Caller | None = None
            for key in self._buckets.get(digest[:2], ()):
                if hmac.compare_digest(key.digest, digest):
                    found = key.caller
            if found is not None:
                return found
            hmac.compare_digest(_NOBODY, digest)
        raise Unauthenticated("Incorrect API key provided.", reason="INVALID_API_KEY")
