"""The first step of every request, whichever front it came through: who asks, is there room, until when."""

from __future__ import annotations

import math
from typing import Final

from gateway.core.keys import Caller, KeyRing
from mesh.clock import Clock, Deadline
from mesh.errors import InvalidArgument, Unauthenticated
from mesh.resilience import LoadShed

_BEARER: Final = "bearer "
_MIN_S: Final = 0.001


class Admission:
    """Knows the keys in force and the room there is."""

    def __init__(self, keys: KeyRing, shed: LoadShed, clock: Clock, deadline_s: float) -> None:
        # Replaced as a whole when the keys file changes.
        self.keys = keys
        # `with admission.shed.enter():` around each generation.
        self.shed = shed
        self._clock = clock
        self._deadline_s = deadline_s

    def authenticate(self, authorization: str | None, api_key: str | None = None) -> Caller:
        """Who sends this `authorization` (a bearer token) or `x-api-key`. Raises Unauthenticated."""
        if authorization is not None and authorization[: len(_BEARER)].lower() == _BEARER:
            return self.keys.find(authorization[len(_BEARER) :].strip())
        if api_key is not None:
            return self.keys.find(api_key)
        if authorization is not None:
            raise Unauthenticated("Send the API key as 'authorization: Bearer <key>'.", reason="INVALID_API_KEY")
        raise Unauthenticated("An API key is needed: 'authorization: Bearer <key>'.", reason="MISSING_API_KEY")

    def deadline(self, asked_s: float | None) -> Deadline:
        """When a request must be over: what the caller asks for in seconds, or the most it may have."""
        return Deadline(self._deadline_s if asked_s is None else min(asked_s, self._deadline_s), self._clock)


def seconds_of(text: str, field: str) -> float:
    """A number of seconds that a caller wrote, a thousandth at least. Raises InvalidArgument; it names the field."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not _MIN_S <= seconds < math.inf:
        raise InvalidArgument(f"{field}: a number of seconds, {_MIN_S} at least, is needed.", field=field)
    return seconds
