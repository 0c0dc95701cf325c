"""What goes wrong in an engine, in the mesh's language of errors."""

from __future__ import annotations

from collections.abc import Callable

from inference.core.checks import RequestError
from inference.core.lora_port import AdapterNameTaken, AdapterNotThere, TooManyAdapters
from inference.core.port import (
    AdapterNotFound,
    ContextTooLong,
    EngineError,
    EngineOverloaded,
    GenerationFailed,
    UnsupportedConstraint,
)
from mesh.errors import (
    AlreadyExists,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    MeshError,
    NotFound,
    ResourceExhausted,
    Unavailable,
)

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
    if isinstance(error, GenerationFailed):
        return Internal(str(error), reason=error.reason)
    if isinstance(error, EngineError):
        failed(error)
        return Unavailable(f"the engine failed: {error}", reason=error.reason)
    return error


def as_loading_error(error: Exception, failed: Callable[[Exception], None]) -> Exception:
    """The error to raise towards whoever wanted an adapter loaded; else as `as_mesh_error`."""
    if isinstance(error, AdapterNotThere):
        return NotFound(f"path: {error}", field="path")
    if isinstance(error, AdapterNameTaken):
        return AlreadyExists(f"name: {error}", field="name")
    if isinstance(error, TooManyAdapters):
        return ResourceExhausted(str(error))
    if isinstance(error, ValueError | OSError):
        return InvalidArgument(f"path: {error}", field="path")
    return as_mesh_error(error, failed)


def _of_request(error: RequestError) -> MeshError:
    kind: type[MeshError] = FailedPrecondition if error.capability else InvalidArgument
    if error.reason == "NOT_FOUND":
        return NotFound(str(error), reason="ADAPTER_NOT_FOUND", field=error.field)
    return kind(str(error), reason=None if error.capability else error.reason, field=error.field)
