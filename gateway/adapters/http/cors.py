"""Which web pages may call: the headers that browsers look for. A key is needed as ever."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

_Headers: TypeAlias = list[tuple[bytes, bytes]]
_ANY: Final = "*"
_METHODS: Final = b"GET, HEAD, POST, OPTIONS"
_EXPOSED: Final = (
    b"x-request-id, x-headrace-deployment, x-headrace-model, x-headrace-revision, x-headrace-attempts, "
    b"x-headrace-cost-usd, retry-after, retry-after-ms, www-authenticate"
)
_MAX_AGE_S: Final = b"600"
_ASKED: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2048}")


class Cors:
    """The origins whose pages may call; "*" stands for all. Empty: no page of another origin."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._any = _ANY in origins
        self._origins = frozenset(origin.rstrip("/").encode("latin-1", "replace") for origin in origins)

    def headers(self, request: dict[bytes, bytes]) -> _Headers:
        """What every answer to that request carries, refusals too."""
        if not self._origins:
            return []
        origin = request.get(b"origin")
        if self._any:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED)]
        vary = (b"vary", b"origin")
        if origin is None or origin not in self._origins:
            return [vary]
        return [(b"access-control-allow-origin", origin), vary, (b"access-control-expose-headers", _EXPOSED)]

    def preflight(self, method: str, request: dict[bytes, bytes]) -> _Headers | None:
        """What a browser is told that asks before it calls; None where this is no such question."""
        if method != "OPTIONS" or not self._origins or b"access-control-request-method" not in request:
            return None
        made: _Headers = [(b"access-control-allow-methods", _METHODS), (b"access-control-max-age", _MAX_AGE_S)]
        asked = request.get(b"access-control-request-headers")
        if asked is not None and _ASKED.fullmatch(asked):
            made.append((b"access-control-allow-headers", asked))
        return made
