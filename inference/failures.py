"""What goes wrong in an engine, in the mesh's language of errors."""

from __future__ import annotations

from collections.abc import Callable

from inference.core.checks import RequestError
from inference.core.port import AdapterNotFound, ContextTooLong, EngineError, EngineOverloaded, UnsupportedConstraint
from mesh.errors import FailedPrecondition, InvalidArgument, MeshError, NotFound, ResourceExhausted, Unavailable

_AT_FAULT: dict[type[EngineError], tuple[type[MeshError], str]] = {
    ContextTooLong: (InvalidArgument, "generation.prompt"),
    UnsupportedConstraint: (InvalidArgument, "generation.sampling.response_format"),
    AdapterNotFound: (NotFound, "generation.adapter"),
}


def as_mesh_error(error: Exception, failed: Callable[[Exception], None]) -> Exception:
    """The error to raise towards the caller. `failed` hears of an engine that broke; a defect stays what it is."""
    if isinstance(error, RequestError):
        return _of_request(error)
    if isinstance(error, EngineOverloaded):
        return ResourceExhausted(str(error), reason=error.reason, retry_after_s=error.retry_after_s)
    for kind, (mesh_error, field) in _AT_FAULT.items():
        if isinstance(error, kind):
            return mesh_error(str(error), reason=error.reason, field=field)
    if isinstance(error, EngineError):
        failed(error)
        return Unavailable(f"the engine failed: {error}", reason=error.reason)
    return error


def _of_request(error: RequestError) -> MeshError:
    kind: type[MeshError] = FailedPrecondition if error.capability else InvalidArgument
    if error.reason == "NOT_FOUND":
        return NotFound(str(error), reason="ADAPTER_NOT_FOUND", field=error.field)
    return kind(str(error), reason=None if error.capability else error.reason, field=error.field)
