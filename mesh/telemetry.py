"""Logs, metrics and trace context: one record per call, handed to every sink.

Logs are JSON lines with a constant dotted event and fields; a call's content is never among them. Metrics are
Prometheus's. The trace context is W3C's `traceparent`, passed on from hop to hop and written into the log.
"""

from __future__ import annotations

import contextvars
import logging
import os
import secrets
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import prometheus_client
import structlog

from mesh.errors import Outcome

REQUEST_ID_KEY = "x-request-id"
TRACE_KEY = "traceparent"
# Whose request it is: what faults for one tenant go by. The edge strips it from outside.
TENANT_KEY = "x-headrace-tenant"

# From a tenth of a millisecond, where hops lie, to minutes, where generations end.
_BUCKETS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)

rpc_seconds = prometheus_client.Histogram(
    "headrace_rpc_seconds",
    "Duration of calls in seconds; side is 'server' or 'client', so a hop's cost is the difference.",
    ("side", "method", "code"),
    buckets=_BUCKETS,
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a call is known by while it is under way."""

    request_id: str
    traceparent: str

    def outgoing(self) -> tuple[tuple[str, str], ...]:
        """Metadata for calls made on behalf of this one; the trace moves on by one span."""
        return ((REQUEST_ID_KEY, self.request_id), (TRACE_KEY, child_of(self.traceparent)))

    @property
    def trace_id(self) -> str:
        """The 32 hex digits that all spans of the trace share."""
        return self.traceparent[3:35]


_scope: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("scope", default=None)


def current_scope() -> Scope | None:
    """The scope of the call that this task serves."""
    return _scope.get()


def enter_scope(request_id: str | None, traceparent: str | None) -> Scope:
    """Set the scope of this task from what the caller sent; what is missing or malformed is made up."""
    if request_id is None or not 0 < len(request_id) <= 128 or not request_id.isprintable():
        request_id = f"req-{secrets.token_hex(12)}"
    if traceparent is None or len(traceparent) != 55:
        traceparent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    scope = Scope(request_id, traceparent)
    _scope.set(scope)
    return scope


def outgoing_metadata(tenant: str = "") -> tuple[tuple[str, str], ...]:
    """Metadata to send with a call made now, on behalf of a tenant if there is one."""
    scope = _scope.get()
    known = scope.outgoing() if scope else ()
    return (*known, (TENANT_KEY, tenant)) if tenant else known


def child_of(traceparent: str) -> str:
    """The same trace with a span of its own."""
    return f"{traceparent[:36]}{os.urandom(8).hex()}{traceparent[52:]}"


@dataclass(frozen=True, slots=True)
class RpcRecord:
    """How one call went; what the summary line and the metrics are made of."""

    method: str
    code: str
    outcome: Outcome
    seconds: float
    reason: str = ""
    peer: str = ""


# Children by their labels: looking one up costs more than counting. Methods and codes are few.
_children: dict[tuple[str, str, str], prometheus_client.Histogram] = {}


def observe_rpc(side: str, method: str, code: str, seconds: float) -> None:
    """Count a call."""
    child = _children.get((side, method, code))
    if child is None:
        child = _children[side, method, code] = rpc_seconds.labels(side, method, code)
    child.observe(seconds)


def record_rpc(record: RpcRecord, log: structlog.typing.FilteringBoundLogger) -> None:
    """Write the call's one summary line and count it."""
    observe_rpc("server", record.method, record.code, record.seconds)
    scope = _scope.get()
    fields = {
        "method": record.method,
        "code": record.code,
        "outcome": record.outcome.name,
        "ms": round(record.seconds * 1e3, 3),
        "request_id": scope.request_id if scope else "",
        "trace_id": scope.trace_id if scope else "",
    }
    if record.reason:
        fields["reason"] = record.reason
    write = log.warning if record.outcome in (Outcome.FAULT, Outcome.MIDSTREAM_FAULT) else log.info
    write("rpc.finished", **fields)


def configure_logging(service: str, replica: str, level: str = "info") -> None:
    """Send structlog's and the standard library's logs to stderr as JSON lines. Call once, first."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _name(service, replica),
            structlog.processors.JSONRenderer(serializer=_encode),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_StdlibHandler()], level=max(number, logging.WARNING), force=True)


class _StdlibHandler(logging.Handler):
    """Hands what libraries log to structlog, so that every line has one form."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, "library.log", logger=record.name, text=record.getMessage(), exc_info=record.exc_info
        )


def _name(service: str, replica: str) -> structlog.typing.Processor:
    def add(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service
        event["replica"] = replica
        return event

    return add


def _encode(event: object, **_: object) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)


def serve_metrics(host: str, port: int) -> None:
    """Serve Prometheus's text format on a thread of its own, until the process ends."""
    prometheus_client.start_http_server(port, addr=host)


def metadata_value(metadata: Iterable[tuple[str, str | bytes]] | None, key: str) -> str | None:
    """The first text value of `key` in a call's metadata."""
    for name, value in metadata or ():
        if name == key and isinstance(value, str):
            return value
    return None
