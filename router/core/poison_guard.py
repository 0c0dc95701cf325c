"""Requests that break whoever answers them: seen by what they did to two replicas, and refused when they come again.

A failover carries a request to the next replica, so one that makes replicas fail would make all of them fail, one after
another, and open their breakers for everybody.
"""

from __future__ import annotations

import hashlib
from typing import Final

from headrace.router.v1 import router_pb2
from mesh.clock import Clock
from mesh.errors import FailedPrecondition, Internal, MeshError

# As many replicas may fail at one request; the second could be chance where the first was.
_MAX_REPLICAS: Final = 2
# How long such a request is refused at once, and how many are remembered.
_REMEMBERED_S: Final = 300.0
_MAX_REMEMBERED: Final = 1024
# Reasons of a replica that went down while it had the request.
_WENT_DOWN: Final = ("ENGINE_FAILED", "CONNECTION_LOST")


def breaks(error: MeshError) -> bool:
    """Whether an error before the first token may be the request's own doing: a defect, or a replica that went down."""
    return isinstance(error, Internal) or error.reason in _WENT_DOWN


class PoisonGuard:
    """Remembers requests that made two replicas fail, by a hash of tenant and content. Bounded, and for a while."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[bytes, float] = {}

    def check(self, request: router_pb2.GenerateRequest) -> None:
        """Raises FailedPrecondition for a request that has made two replicas fail just now."""
        if self._until and self._until.get(_digest(request), 0.0) > self._clock.monotonic():
            raise _refusal()

    def failed_at(self, request: router_pb2.GenerateRequest, replicas: frozenset[str]) -> None:
        """Take in at which replicas the request has failed so far. Raises FailedPrecondition when these are enough."""
        if len(replicas) < _MAX_REPLICAS:
            return
        digest = _digest(request)
        self._until.pop(digest, None)
        self._until[digest] = self._clock.monotonic() + _REMEMBERED_S
        while len(self._until) > _MAX_REMEMBERED:
            del self._until[next(iter(self._until))]
        raise _refusal()


def _digest(request: router_pb2.GenerateRequest) -> bytes:
    digest = hashlib.blake2b(request.context.tenant.encode(), digest_size=16)
    digest.update(request.generation.SerializeToString(deterministic=True))
    return digest.digest()


def _refusal() -> FailedPrecondition:
    return FailedPrecondition(
        "two replicas failed while they worked on this request, so it is not carried to others; change it, or tell "
        "whoever runs the mesh its request id",
        reason="POISON_REQUEST",
    )
