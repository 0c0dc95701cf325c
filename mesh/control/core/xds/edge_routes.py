"""The edge's routes: timeouts that suit streams, retries that repeat nothing, faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2

from mesh.control.core.faults import EDGE, EDGE_KIND
from mesh.control.core.model import Fault, Snapshot
from mesh.control.core.xds.endpoints import number, seconds
from mesh.control.core.xds.faults import TENANT_HEADER, by_tenant, fault_settings
from mesh.control.core.xds.mesh_paths import tenant_matcher
from mesh.control.core.xds.resources import EDGE_PREFIX, pack

ROUTES_NAME: Final = f"{EDGE_PREFIX}public"
HTTP_CLUSTER: Final = f"{EDGE_PREFIX}gateway-http"
GRPC_CLUSTER: Final = f"{EDGE_PREFIX}gateway-grpc"
BUFFER_FILTER: Final = "request-size"

# "/grpc." are health and reflection.
_GRPC_PREFIXES: Final = ("/headrace.gateway.v1.Gateway/", "/grpc.")
_STREAM_PATHS: Final = ("/v1/chat/completions", "/v1/completions")
# Nothing sent in either direction for so long ends a stream.
STREAM_IDLE_S: Final = 300.0
_SHORT_S: Final = 15.0


def edge_routes(snapshot: Snapshot) -> Any:
    """All routes of the edge. The tenant's header is taken off what comes from outside: it is the gateway's to set."""
    edge_services = {EDGE, *(s.name for s in snapshot.services if s.kind == EDGE_KIND)}
    faults = tuple(f for f in snapshot.faults if f.service in edge_services)
    routes = [route for tenant, hits in by_tenant(faults).items() for route in _routes(tenant, hits)]
    host = route_components_pb2.VirtualHost(name="public", domains=["*"], routes=routes, retry_policy=_retries())
    return route_pb2.RouteConfiguration(
        name=ROUTES_NAME, virtual_hosts=[host], request_headers_to_remove=[TENANT_HEADER]
    )


def _routes(tenant: str, faults: tuple[Fault, ...]) -> Iterator[Any]:
    over_grpc = fault_settings(faults, grpc=True)
    # A buffer would hold back the messages of a stream that is open both ways; gRPC servers limit sizes themselves.
    over_grpc[BUFFER_FILTER] = pack(buffer_pb2.BufferPerRoute(disabled=True))
    over_http = fault_settings(faults, grpc=False)
    for prefix in _GRPC_PREFIXES:
        yield _route(route_components_pb2.RouteMatch(prefix=prefix), tenant, GRPC_CLUSTER, 0.0, over_grpc)
    for path in _STREAM_PATHS:
        yield _route(route_components_pb2.RouteMatch(path=path), tenant, HTTP_CLUSTER, 0.0, over_http)
    yield _route(route_components_pb2.RouteMatch(prefix="/"), tenant, HTTP_CLUSTER, _SHORT_S, over_http)


def _route(match: Any, tenant: str, cluster: str, timeout_s: float, settings: dict[str, Any]) -> Any:
    """`timeout_s` bounds the whole answer; 0 leaves that to the gateway and bounds the silence only."""
    if tenant:
        match.headers.append(tenant_matcher(tenant))
    action = route_components_pb2.RouteAction(
        cluster=cluster, timeout=seconds(timeout_s), idle_timeout=seconds(timeout_s or STREAM_IDLE_S)
    )
    return route_components_pb2.Route(match=match, route=action, typed_per_filter_config=settings)


def _retries() -> Any:
    """Another gateway, but only where the first one surely saw nothing of the request."""
    avoid = route_components_pb2.RetryPolicy.RetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts",
        typed_config=pack(previous_hosts_pb2.PreviousHostsPredicate()),
    )
    return route_components_pb2.RetryPolicy(
        retry_on="connect-failure,refused-stream,reset-before-request",
        num_retries=number(2),
        retry_host_predicate=[avoid],
        host_selection_retry_max_attempts=3,
    )
