"""The error tree and its one mapping: to a gRPC status, to an HTTP status, to an outcome, and back from a gRPC error.

Every error of the mesh is a MeshError. Its class fixes the gRPC code; its `reason` (SCREAMING_SNAKE) is the word that
programs match on; its message is for people and says what to do next.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import ClassVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

DOMAIN = "headrace"


class Outcome(enum.IntEnum):
    """How a call ended. The numbers are those of the contract's enum."""

    OK = 1
    CALLER_FAULT = 2
    BACKPRESSURE = 3
    FAULT = 4
    MIDSTREAM_FAULT = 5


class MeshError(Exception):
    """An error with a place in the one language of errors.

    `metadata` travels in ErrorInfo: short strings, never secrets, never a caller's content. `field` names the part of
    the request that is at fault. `retry_after_s` says when trying again makes sense.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    http_status: ClassVar[int] = 500
    outcome: ClassVar[Outcome] = Outcome.FAULT
    default_reason: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        field: str | None = None,
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.field = field
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata or {})


class InvalidArgument(MeshError):
    """The request is wrong in itself."""

    code, http_status, outcome = grpc.StatusCode.INVALID_ARGUMENT, 400, Outcome.CALLER_FAULT
    default_reason = "INVALID_ARGUMENT"


class OutOfRange(InvalidArgument):
    """The request is too large for what is there."""

    code = grpc.StatusCode.OUT_OF_RANGE
    default_reason = "OUT_OF_RANGE"


class Unauthenticated(MeshError):
    """The caller is unauthenticated: no key, or one that is not known."""

    code, http_status, outcome = grpc.StatusCode.UNAUTHENTICATED, 401, Outcome.CALLER_FAULT
    default_reason = "UNAUTHENTICATED"


class PermissionDenied(MeshError):
    """Somebody known asks for what they may not have."""

    code, http_status, outcome = grpc.StatusCode.PERMISSION_DENIED, 403, Outcome.CALLER_FAULT
    default_reason = "PERMISSION_DENIED"


class NotFound(MeshError):
    """What is named does not exist."""

    code, http_status, outcome = grpc.StatusCode.NOT_FOUND, 404, Outcome.CALLER_FAULT
    default_reason = "NOT_FOUND"


class AlreadyExists(MeshError):
    """The name is taken."""

    code, http_status, outcome = grpc.StatusCode.ALREADY_EXISTS, 409, Outcome.CALLER_FAULT
    default_reason = "ALREADY_EXISTS"


class FailedPrecondition(MeshError):
    """Right in itself, but not as things stand; trying again changes nothing."""

    code, http_status, outcome = grpc.StatusCode.FAILED_PRECONDITION, 400, Outcome.CALLER_FAULT
    default_reason = "FAILED_PRECONDITION"


class Cancelled(MeshError):
    """The caller went away."""

    code, http_status, outcome = grpc.StatusCode.CANCELLED, 499, Outcome.CALLER_FAULT
    default_reason = "CANCELLED"


class Unimplemented(MeshError):
    """Not offered here."""

    code, http_status, outcome = grpc.StatusCode.UNIMPLEMENTED, 501, Outcome.CALLER_FAULT
    default_reason = "UNIMPLEMENTED"


class ResourceExhausted(MeshError):
    """Too busy, or a limit is reached; `retry_after_s` says when to come back."""

    code, http_status, outcome = grpc.StatusCode.RESOURCE_EXHAUSTED, 429, Outcome.BACKPRESSURE
    default_reason = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(MeshError):
    """The time given is over."""

    code, http_status, outcome = grpc.StatusCode.DEADLINE_EXCEEDED, 504, Outcome.FAULT
    default_reason = "DEADLINE_EXCEEDED"


class Aborted(MeshError):
    """Gave up half-way; the whole may be tried again."""

    code, http_status, outcome = grpc.StatusCode.ABORTED, 503, Outcome.FAULT
    default_reason = "ABORTED"


class Unavailable(MeshError):
    """Not there now."""

    code, http_status, outcome = grpc.StatusCode.UNAVAILABLE, 503, Outcome.FAULT
    default_reason = "UNAVAILABLE"


class StreamCut(Unavailable):
    """A stream ended without its end, after part of it had arrived."""

    outcome = Outcome.MIDSTREAM_FAULT
    default_reason = "STREAM_CUT"


class Internal(MeshError):
    """A defect. Callers get a generic message and the request id; the log has the rest."""

    code, http_status, outcome = grpc.StatusCode.INTERNAL, 500, Outcome.FAULT
    default_reason = "INTERNAL"


class DataLoss(MeshError):
    """Something arrived that cannot be read."""

    code, http_status, outcome = grpc.StatusCode.DATA_LOSS, 502, Outcome.FAULT
    default_reason = "DATA_LOSS"


_BY_CODE: dict[grpc.StatusCode, type[MeshError]] = {
    cls.code: cls
    for cls in (
        InvalidArgument, OutOfRange, Unauthenticated, PermissionDenied, NotFound, AlreadyExists, FailedPrecondition,
        Cancelled, Unimplemented, ResourceExhausted, DeadlineExceeded, Aborted, Unavailable, Internal, DataLoss,
    )
}  # fmt: skip
_NUMBER: dict[grpc.StatusCode, int] = {code: code.value[0] for code in grpc.StatusCode}


def to_status(error: MeshError) -> status_pb2.Status:
    """The error as google.rpc.Status, with ErrorInfo and, where there is one, RetryInfo."""
    metadata = dict(error.metadata)
    if error.field is not None:
        metadata["field"] = error.field
    if error.outcome is Outcome.MIDSTREAM_FAULT:
        metadata["outcome"] = error.outcome.name
    status = status_pb2.Status(code=_NUMBER[error.code], message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    status.details.append(_pack(info))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        status.details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def from_rpc_error(error: grpc.aio.AioRpcError) -> MeshError:
    """The error that a peer meant, or the nearest to what gRPC itself says."""
    cls = _BY_CODE.get(error.code(), MeshError)
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        status = None
    if status is None or status.code == code_pb2.OK:
        return cls(error.details() or error.code().name)
    return _from_status(cls, status)


def _from_status(cls: type[MeshError], status: status_pb2.Status) -> MeshError:
    reason: str | None = None
    retry_after: float | None = None
    metadata: dict[str, str] = {}
    for detail in status.details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    if metadata.pop("outcome", None) == Outcome.MIDSTREAM_FAULT.name:
        cls = StreamCut
    field = metadata.pop("field", None)
    return cls(status.message, reason=reason, field=field, retry_after_s=retry_after, metadata=metadata)


def _pack(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
