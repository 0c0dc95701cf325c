"""Which errors of a node say that this deployment cannot do what is asked, though another one of the chain may."""

from __future__ import annotations

from typing import Final

from mesh.errors import FailedPrecondition, MeshError, Outcome, Unimplemented

_REASONS: Final = frozenset({"CONTEXT_TOO_LONG", "UNSUPPORTED_CONSTRAINT", "UNSUPPORTED_BY_PROVIDER"})
# What a provider's passing trouble is called: it may be gone a moment later.
_PASSING: Final = frozenset({"PROVIDER_FAILED", "PROVIDER_STREAM_BROKEN"})


def moves_on(error: MeshError) -> bool:
    """Whether the next member of the chain is asked, as if this one had never been meant."""
    if error.outcome is not Outcome.CALLER_FAULT:
        return False
    return error.reason in _REASONS or isinstance(error, FailedPrecondition | Unimplemented)


def passes(error: MeshError) -> bool:
    """Whether the same deployment is worth asking once more before one that costs more."""
    return error.reason in _PASSING
