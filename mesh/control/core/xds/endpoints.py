"""Endpoints and clusters: where the replicas are, and how much may be sent to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2, base_pb2, config_source_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf import duration_pb2, wrappers_pb2

from mesh.address import split
from mesh.control.core.model import Replica

# gRPC ignores endpoints without a locality; the mesh has one.
_LOCALITY: Final = base_pb2.Locality(zone="local")


def ads() -> Any:
    """The rest comes over the same stream."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
    )


def seconds(value: float) -> Any:
    """A Duration."""
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(round(value * 1e9))
    return duration


def number(value: int) -> Any:
    """A wrapped number, for fields where unset and zero differ."""
    return wrappers_pb2.UInt32Value(value=value)


def load_assignment(name: str, replicas: Iterable[Replica], port: str = "grpc") -> Any:
    """The healthy replicas, at one of their ports. Without any the assignment is empty, so that callers fail fast."""
    endpoints = [_endpoint(r, r.port(port)) for r in replicas if r.healthy and r.port(port) is not None]
    assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    if endpoints:
        assignment.endpoints.append(
            endpoint_components_pb2.LocalityLbEndpoints(
                locality=_LOCALITY, load_balancing_weight=number(1), lb_endpoints=endpoints
            )
        )
    return assignment


def _endpoint(replica: Replica, port: int | None) -> Any:
    host = split(replica.address)[0]
    address = address_pb2.Address(socket_address=address_pb2.SocketAddress(address=host, port_value=port))
    return endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=address), load_balancing_weight=number(replica.weight)
    )


def limits(max_requests: int, max_connections: int | None = None) -> Any:
    """Circuit limits: what one client may have under way; beyond it calls fail at once."""
    threshold = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_requests=number(max_requests), max_pending_requests=number(max_requests), track_remaining=True
    )
    if max_connections is not None:
        threshold.max_connections.value = max_connections
    return circuit_breaker_pb2.CircuitBreakers(thresholds=[threshold])


def mesh_cluster(name: str, max_requests: int, *, outliers: bool) -> Any:
    """A cluster for proxyless clients. `outliers`: leave out replicas that fail much more often than the others."""
    cluster = cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(eds_config=ads()),
        lb_policy=cluster_pb2.Cluster.ROUND_ROBIN,
        circuit_breakers=limits(max_requests),
    )
    if outliers:
        cluster.outlier_detection.CopyFrom(_relative_outliers())
    return cluster


def _relative_outliers() -> Any:
    """Compare replicas with each other, never with a fixed rate.

    gRPC counts every status but OK as a failure (gRFC A50), callers' own mistakes too. Those hit all replicas alike, so
    only a replica that stands out may be left out. One that always fails lies sqrt(n - 1) deviations below the mean of
    n, so 1.3 deviations find it among three.
    """
    return outlier_detection_pb2.OutlierDetection(
        interval=seconds(2),
        base_ejection_time=seconds(5),
        max_ejection_percent=number(50),
        enforcing_success_rate=number(100),
        success_rate_minimum_hosts=number(3),
        success_rate_request_volume=number(20),
        success_rate_stdev_factor=number(1300),
        enforcing_failure_percentage=number(0),
        enforcing_consecutive_5xx=number(0),
    )
