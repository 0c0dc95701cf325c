"""Every error survives the way over gRPC: class, reason, field, retry-after, outcome."""

import grpc
import pytest
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from mesh import errors
from mesh.errors import MeshError, Outcome, from_rpc_error, to_status

CLASSES = [
    errors.InvalidArgument, errors.OutOfRange, errors.Unauthenticated, errors.PermissionDenied, errors.NotFound,
    errors.AlreadyExists, errors.FailedPrecondition, errors.Cancelled, errors.Unimplemented,
    errors.ResourceExhausted, errors.DeadlineExceeded, errors.Aborted, errors.Unavailable, errors.StreamCut,
    errors.Internal, errors.DataLoss,
]  # fmt: skip


def rpc_error(code: grpc.StatusCode, details: str, status: status_pb2.Status | None) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata()
    if status is not None:
        trailing.add("grpc-status-details-bin", status.SerializeToString())
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details=details)


@given(
    cls=st.sampled_from(CLASSES),
    message=st.text(min_size=1, max_size=50),
    reason=st.none() | st.from_regex(r"[A-Z][A-Z_]{0,20}", fullmatch=True),
    field=st.none() | st.from_regex(r"[a-z.]{1,20}", fullmatch=True),
    retry_after=st.none() | st.floats(min_value=0, max_value=86400),
)
def test_round_trip(
    cls: type[MeshError], message: str, reason: str | None, field: str | None, retry_after: float | None
) -> None:
    error = cls(message, reason=reason, field=field, retry_after_s=retry_after, metadata={"k": "v"})
    back = from_rpc_error(rpc_error(cls.code, message, to_status(error)))
    assert type(back) is cls
    assert (back.message, back.reason, back.field) == (message, error.reason, field)
    assert back.metadata == {"k": "v"}
    assert back.outcome is cls.outcome
    if retry_after is None:
        assert back.retry_after_s is None
    else:
        assert back.retry_after_s == pytest.approx(retry_after, abs=1e-6)


def test_a_bare_grpc_error_keeps_its_code() -> None:
    back = from_rpc_error(rpc_error(grpc.StatusCode.UNAVAILABLE, "connection refused", None))
    assert type(back) is errors.Unavailable
    assert back.message == "connection refused"


def test_only_faults_may_move_a_breaker() -> None:
    steady = {cls for cls in CLASSES if cls.outcome in (Outcome.CALLER_FAULT, Outcome.BACKPRESSURE)}
    assert errors.InvalidArgument in steady
    assert errors.ResourceExhausted in steady
    assert errors.Unavailable not in steady
    assert errors.StreamCut.outcome is Outcome.MIDSTREAM_FAULT
