"""Bodies that are too large are refused at the edge, without holding many of them.

A body that says how large it is and is too large has to be read all the same: a client that still sends when its
connection is closed never sees the answer. So up to the limit of it is read, of a few such requests at a time; more of
them are refused at once. Nothing is held of any other request: gateways count what does not say how large it is.
"""

from __future__ import annotations

from typing import Any, Final

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.type.v3 import http_status_pb2, percent_pb2, range_pb2, token_bucket_pb2

from mesh.control.core.xds.endpoints import number, seconds
from mesh.control.core.xds.faults import named_filter
from mesh.control.core.xds.resources import pack

MAX_REQUEST_BYTES: Final = 8 * 1024 * 1024
# How long a request may take to arrive. Beyond the time that gateways give a body, so that they answer where they can.
REQUEST_S: Final = 40.0
# So many bodies that are too large are read within REQUEST_S, so at most twice as many are held.
_READ_TOO_LARGE: Final = 8
_TURNS: Final = "too-large-turns"
_SIZE: Final = "request-size"


def body_limit_filters() -> list[Any]:
    """The filters, which do nothing on routes that do not ask them to."""
    turns = local_rate_limit_pb2.LocalRateLimit(stat_prefix=_TURNS)
    return [
        named_filter(_TURNS, turns),
        named_filter(_SIZE, buffer_pb2.Buffer(max_request_bytes=number(MAX_REQUEST_BYTES))),
    ]


def unlimited() -> dict[str, Any]:
    """Settings of every other route."""
    return {_SIZE: pack(buffer_pb2.BufferPerRoute(disabled=True))}


def too_large_route(cluster: str) -> Any:
    """The route of bodies that say they are too large; none of them comes as far as the cluster."""
    sizes = range_pb2.Int64Range(start=MAX_REQUEST_BYTES + 1, end=2**63 - 1)
    length = route_components_pb2.HeaderMatcher(name="content-length", range_match=sizes)
    limit = buffer_pb2.BufferPerRoute(buffer=buffer_pb2.Buffer(max_request_bytes=number(MAX_REQUEST_BYTES)))
    return route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(prefix="/", headers=[length]),
        route=route_components_pb2.RouteAction(cluster=cluster),
        typed_per_filter_config={_SIZE: pack(limit), _TURNS: pack(_turns())},
    )


def _turns() -> Any:
    always = base_pb2.RuntimeFractionalPercent(default_value=percent_pb2.FractionalPercent(numerator=100))
    return local_rate_limit_pb2.LocalRateLimit(
        stat_prefix=_TURNS,
        status=http_status_pb2.HttpStatus(code=http_status_pb2.PayloadTooLarge),
        token_bucket=token_bucket_pb2.TokenBucket(
            max_tokens=_READ_TOO_LARGE, tokens_per_fill=number(1), fill_interval=seconds(REQUEST_S / _READ_TOO_LARGE)
        ),
        filter_enabled=always,
        filter_enforced=always,
    )
