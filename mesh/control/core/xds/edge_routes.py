"""The edge's routes: timeouts that suit streams, retries that repeat nothing, faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from google.protobuf import wrappers_pb2

from mesh.control.core.faults import EDGE, EDGE_KIND
from mesh.control.core.model import Fault, Snapshot
from mesh.control.core.xds.body_limit import too_large_route, unlimited
from mesh.control.core.xds.endpoints import number, seconds
from mesh.control.core.xds.faults import TENANT_HEADER, by_tenant, fault_settings
from mesh.control.core.xds.mesh_paths import tenant_matcher
from mesh.control.core.xds.resources import EDGE_PREFIX, pack

ROUTES_NAME: Final = f"{EDGE_PREFIX}public"
HTTP_CLUSTER: Final = f"{EDGE_PREFIX}gateway-http"
GRPC_CLUSTER: Final = f"{EDGE_PREFIX}gateway-grpc"

# All that is public over gRPC: the gateway's contract and a look at its health. Not reflection and not health's Watch,
# whose streams anyone could hold open, nor what else the gateway's port answers inside the mesh: those paths are the
# HTTP front's, which does not know them.
PUBLIC_GRPC_SERVICES: Final = ("/headrace.gateway.v1.Gateway/",)
PUBLIC_GRPC_METHODS: Final = ("/grpc.health.v1.Health/Check",)
_STREAM_PATHS: Final = ("/v1/chat/completions", "/v1/completions")
# Nothing sent in either direction for so long ends a stream.
STREAM_IDLE_S: Final = 300.0
_SHORT_S: Final = 15.0
# Of a request that may have to be sent to another gateway; a larger one is sent once.
_KEPT_FOR_RETRIES_BYTES: Final = 64 * 1024
_Match: Final = route_components_pb2.RouteMatch


def edge_routes(snapshot: Snapshot) -> Any:
    """All routes of the edge. The tenant's header is taken off what comes from outside: it is the gateway's to set."""
    edge_services = {EDGE, *(s.name for s in snapshot.services if s.kind == EDGE_KIND)}
    faults = tuple(f for f in snapshot.faults if f.service in edge_services)
    routes = [route for tenant, hits in by_tenant(faults).items() for route in _routes(tenant, hits)]
    host = route_components_pb2.VirtualHost(
        name="public",
        domains=["*"],
        routes=[too_large_route(HTTP_CLUSTER), *routes],
        typed_per_filter_config=unlimited(),
        retry_policy=_retries(),
        request_body_buffer_limit=wrappers_pb2.UInt64Value(value=_KEPT_FOR_RETRIES_BYTES),
    )
    return route_pb2.RouteConfiguration(
        name=ROUTES_NAME,
        virtual_hosts=[host],
        request_headers_to_remove=[TENANT_HEADER],
        response_headers_to_add=[request_id_if_absent()],
    )


def request_id_if_absent() -> Any:
    """The request's id on answers that have none. A gateway gives its own where it did not take the caller's."""
    header = base_pb2.HeaderValue(key="x-request-id", value="%REQ(X-REQUEST-ID)%")
    return base_pb2.HeaderValueOption(header=header, append_action=base_pb2.HeaderValueOption.ADD_IF_ABSENT)


def _routes(tenant: str, faults: tuple[Fault, ...]) -> Iterator[Any]:
    over_grpc = fault_settings(faults, grpc=True)
    over_http = fault_settings(faults, grpc=False)
    grpc = _Match.GrpcRouteMatchOptions()
    public = [
        *(_Match(prefix=service, grpc=grpc) for service in PUBLIC_GRPC_SERVICES),
        *(_Match(path=method, grpc=grpc) for method in PUBLIC_GRPC_METHODS),
    ]
    for match in public:
        yield _route(match, tenant, GRPC_CLUSTER, 0.0, over_grpc)
    for path in _STREAM_PATHS:
        yield _route(_Match(path=path), tenant, HTTP_CLUSTER, 0.0, over_http)
    yield _route(_Match(prefix="/"), tenant, HTTP_CLUSTER, _SHORT_S, over_http)


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
