"""What Envoy at the edge asks for: one listener, its routes, and the gateways as two clusters (HTTP and gRPC)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from envoy.config.cluster.v3 import cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import health_check_pb2, protocol_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.v3 import percent_pb2

from mesh.control.core.faults import EDGE_KIND
from mesh.control.core.model import Replica, Snapshot
from mesh.control.core.xds.edge_listener import BUFFER_BYTES, edge_listener
from mesh.control.core.xds.edge_routes import GRPC_CLUSTER, HTTP_CLUSTER, edge_routes
from mesh.control.core.xds.endpoints import ads, limits, load_assignment, number, seconds
from mesh.control.core.xds.resources import pack

_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MAX_CONNECTIONS: Final = 4096


def edge_paths(snapshot: Snapshot, max_requests: int, *, faults_on: bool) -> Iterator[Any]:
    """Everything for Envoy; nothing where the stack has no edge."""
    if snapshot.edge is None:
        return
    gateways = tuple(r for s in snapshot.services if s.kind == EDGE_KIND for r in s.replicas)
    yield edge_listener(snapshot.edge.listen, faults_on=faults_on)
    yield edge_routes(snapshot)
    yield from _group(HTTP_CLUSTER, gateways, "http", max_requests)
    yield from _group(GRPC_CLUSTER, gateways, "grpc", max_requests)


def _group(name: str, gateways: tuple[Replica, ...], port: str, max_requests: int) -> Iterator[Any]:
    cluster = cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(eds_config=ads()),
        connect_timeout=seconds(1),
        per_connection_buffer_limit_bytes=number(BUFFER_BYTES),
        lb_policy=cluster_pb2.Cluster.LEAST_REQUEST,
        circuit_breakers=limits(max_requests, _MAX_CONNECTIONS),
        outlier_detection=_unreachable(),
        health_checks=[_health_check(grpc=port == "grpc")],
        # A gateway that drains leaves at once; its requests under way go on to their end.
        ignore_health_on_host_removal=True,
        common_lb_config=cluster_pb2.Cluster.CommonLbConfig(
            # With nobody healthy, answer 503 instead of trying the unhealthy.
            healthy_panic_threshold=percent_pb2.Percent(value=0),
            # A new gateway's first good health check counts at once; by default it is held back for a second.
            update_merge_window=seconds(0),
        ),
        typed_extension_protocol_options={_HTTP_OPTIONS: pack(_protocol(grpc=port == "grpc"))},
    )
    yield cluster
    yield load_assignment(name, gateways, port)


def _unreachable() -> Any:
    """Leave out gateways that cannot be reached or cut connections.

    Not those that answer 5xx: a gateway says 503 when something behind it is missing, and so would the next one.
    """
    return outlier_detection_pb2.OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=number(3),
        enforcing_consecutive_local_origin_failure=number(100),
        enforcing_consecutive_5xx=number(0),
        enforcing_consecutive_gateway_failure=number(0),
        enforcing_success_rate=number(0),
        enforcing_local_origin_success_rate=number(0),
        interval=seconds(1),
        base_ejection_time=seconds(5),
        max_ejection_percent=number(50),
    )


def _health_check(*, grpc: bool) -> Any:
    """Envoy's own look at each gateway, for the time when the control plane is away."""
    check = health_check_pb2.HealthCheck(
        timeout=seconds(1),
        interval=seconds(2),
        no_traffic_interval=seconds(2),
        unhealthy_threshold=number(2),
        healthy_threshold=number(1),
    )
    if grpc:
        check.grpc_health_check.SetInParent()
    else:
        check.http_health_check.path = "/readyz"
    return check


def _protocol(*, grpc: bool) -> Any:
    options = http_protocol_options_pb2.HttpProtocolOptions()
    if grpc:
        keepalive = protocol_pb2.KeepaliveSettings(interval=seconds(10), timeout=seconds(3))
        options.explicit_http_config.http2_protocol_options.connection_keepalive.CopyFrom(keepalive)
    else:
        options.explicit_http_config.http_protocol_options.SetInParent()
        # Below the time after which HTTP servers close idle connections, so that none is used while it is closed.
        options.common_http_protocol_options.idle_timeout.CopyFrom(seconds(4))
    return options
