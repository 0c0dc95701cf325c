"""The edge's listener: protocols, limits, the access log, and errors in the form that clients of the API expect."""

from __future__ import annotations

import json
from typing import Any, Final

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import address_pb2, base_pb2, protocol_pb2, substitution_format_string_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf import struct_pb2, wrappers_pb2

from mesh.control.core.xds.body_limit import MAX_REQUEST_BYTES, REQUEST_S, body_limit_filters
from mesh.control.core.xds.edge_routes import ROUTES_NAME, STREAM_IDLE_S, request_id_if_absent
from mesh.control.core.xds.endpoints import ads, number, seconds
from mesh.control.core.xds.faults import http_filters
from mesh.control.core.xds.resources import EDGE_PREFIX, pack

# What one connection may hold here while a gateway reads slowly, or its client does.
BUFFER_BYTES: Final = 64 * 1024
_IDLE_S: Final = 120.0
_MAX_STREAMS: Final = 128
_Manager: Final = http_connection_manager_pb2.HttpConnectionManager

# Envoy's own answers: HTTP status -> type, code and message of the error body.
_ERRORS: Final = {
    400: ("invalid_request_error", "bad_request", "The request is not valid HTTP."),
    408: ("invalid_request_error", "request_timeout", "The request did not arrive in time."),
    413: ("invalid_request_error", "request_too_large", f"The request is larger than {MAX_REQUEST_BYTES} bytes."),
    426: (
        "invalid_request_error",
        "http_version_not_supported",
        "HTTP/1.0 is not supported: send the request as HTTP/1.1 or HTTP/2.",
    ),
    429: ("rate_limit_error", "rate_limit_exceeded", "Too many requests; try again later."),
    431: ("invalid_request_error", "headers_too_large", "The request's headers are too large."),
    503: ("server_error", "service_unavailable", "No gateway can take the request now; try again."),
    504: ("server_error", "timeout", "The answer did not come in time."),
}
_ANY_ERROR: Final = ("server_error", "edge_error", "The request failed at the edge.")

_ACCESS_LOG: Final = {
    "time": "%START_TIME%",
    "event": "edge.request",
    "method": "%REQ(:METHOD)%",
    # Without the query string: it is the caller's.
    "path": "%PATH(NQ)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "ms": "%DURATION%",
    "first_byte_ms": "%RESPONSE_DURATION%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "upstream": "%UPSTREAM_HOST%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "request_id": "%REQ(X-REQUEST-ID)%",
}


def edge_listener(listen: str, *, faults_on: bool) -> Any:
    """The public listener. It depends on nothing that changes while the mesh runs: replacing it drains connections."""
    host, _, port = listen.rpartition(":")
    address = address_pb2.SocketAddress(address=host.strip("[]"), port_value=int(port))
    manager = listener_components_pb2.Filter(name="http", typed_config=pack(_manager(faults_on=faults_on)))
    return listener_pb2.Listener(
        name=f"{EDGE_PREFIX}public",
        address=address_pb2.Address(socket_address=address),
        filter_chains=[listener_components_pb2.FilterChain(filters=[manager])],
        per_connection_buffer_limit_bytes=number(BUFFER_BYTES),
    )


def _manager(*, faults_on: bool) -> Any:
    return _Manager(
        stat_prefix="edge",
        # HTTP/1.1, HTTP/2 with prior knowledge, and so gRPC, told apart by their first bytes.
        codec_type=_Manager.AUTO,
        rds=http_connection_manager_pb2.Rds(route_config_name=ROUTES_NAME, config_source=ads()),
        http_filters=[*body_limit_filters(), *http_filters(faults_on=faults_on)],
        use_remote_address=wrappers_pb2.BoolValue(value=True),
        normalize_path=wrappers_pb2.BoolValue(value=True),
        # A client's own id stays, so that it can find its request in every log of the mesh.
        generate_request_id=wrappers_pb2.BoolValue(value=True),
        preserve_external_request_id=True,
        stream_idle_timeout=seconds(STREAM_IDLE_S),
        # A client that sends its request a byte a minute holds nothing for long.
        request_headers_timeout=seconds(10),
        request_timeout=seconds(REQUEST_S),
        max_request_headers_kb=number(32),
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            idle_timeout=seconds(_IDLE_S), max_headers_count=number(100)
        ),
        http2_protocol_options=protocol_pb2.Http2ProtocolOptions(
            max_concurrent_streams=number(_MAX_STREAMS),
            # What one stream, and all of a connection, may send before a gateway has taken it.
            initial_stream_window_size=number(BUFFER_BYTES),
            initial_connection_window_size=number(4 * BUFFER_BYTES),
        ),
        access_log=[_access_log()],
        local_reply_config=_local_replies(),
    )


def _access_log() -> Any:
    fields = struct_pb2.Struct()
    fields.update(_ACCESS_LOG)
    form = substitution_format_string_pb2.SubstitutionFormatString(json_format=fields)
    return accesslog_pb2.AccessLog(
        name="envoy.access_loggers.stdout", typed_config=pack(stream_pb2.StdoutAccessLog(log_format=form))
    )


def _local_replies() -> Any:
    """Error bodies as JSON for HTTP calls. A gRPC call keeps its plain message."""
    exact = [_mapper(_status(status, exact=True), *error) for status, error in _ERRORS.items()]
    return http_connection_manager_pb2.LocalReplyConfig(
        mappers=[*exact, _mapper(_status(400, exact=False), *_ANY_ERROR)]
    )


def _mapper(filtered: Any, kind: str, code: str, message: str) -> Any:
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})
    return http_connection_manager_pb2.ResponseMapper(
        filter=filtered,
        headers_to_add=[request_id_if_absent()],
        body_format_override=substitution_format_string_pb2.SubstitutionFormatString(
            text_format_source=base_pb2.DataSource(inline_string=body), content_type="application/json"
        ),
    )


def _status(status: int, *, exact: bool) -> Any:
    """Matches an HTTP status (or, inexactly, it and all above) on calls that are not gRPC."""
    operator = accesslog_pb2.ComparisonFilter.EQ if exact else accesslog_pb2.ComparisonFilter.GE
    compared = accesslog_pb2.ComparisonFilter(
        op=operator, value=base_pb2.RuntimeUInt32(default_value=status, runtime_key=f"edge.local_reply.{status}")
    )
    not_grpc = route_components_pb2.HeaderMatcher(
        name="content-type",
        string_match=string_pb2.StringMatcher(prefix="application/grpc"),
        invert_match=True,
        treat_missing_header_as_empty=True,
    )
    return accesslog_pb2.AccessLogFilter(
        and_filter=accesslog_pb2.AndFilter(
            filters=[
                accesslog_pb2.AccessLogFilter(status_code_filter=accesslog_pb2.StatusCodeFilter(comparison=compared)),
                accesslog_pb2.AccessLogFilter(header_filter=accesslog_pb2.HeaderFilter(header=not_grpc)),
            ]
        )
    )
