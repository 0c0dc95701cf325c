"""A snapshot as xDS resources, and the check that nothing in them refers to what is not there."""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from mesh.control.core.model import Snapshot
from mesh.control.core.xds.edge import edge_paths
from mesh.control.core.xds.mesh_paths import mesh_paths
from mesh.control.core.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, ResourceSet, resource_set


def build_resources(snapshot: Snapshot, max_requests: int, *, faults_on: bool) -> ResourceSet:
    """All resources of a snapshot. `max_requests` is what one client may have under way to one service."""
    messages = [
        *mesh_paths(snapshot, max_requests, faults_on=faults_on),
        *edge_paths(snapshot, max_requests, faults_on=faults_on),
    ]
    return resource_set(snapshot.version, messages)


def dangling(resources: ResourceSet) -> tuple[str, ...]:
    """What refers to something that is not there, in words; empty for a set that may be published."""
    problems = []
    filters: dict[str, set[str]] = {}
    for name, manager in _managers(resources):
        route = manager.rds.route_config_name
        filters[route] = {f.name for f in manager.http_filters}
        if resources.get(ROUTES, route) is None:
            problems.append(f"listener {name}: no routes {route}")
    for name, routes in _unpacked(resources, ROUTES, route_pb2.RouteConfiguration):
        for route in (r for host in routes.virtual_hosts for r in host.routes):
            if resources.get(CLUSTER, route.route.cluster) is None:
                problems.append(f"routes {name}: no cluster {route.route.cluster}")
            missing = set(route.typed_per_filter_config) - filters.get(name, set())
            problems += [f"routes {name}: no filter {f}" for f in sorted(missing)]
    for name, _ in _unpacked(resources, CLUSTER, cluster_pb2.Cluster):
        if resources.get(ENDPOINTS, name) is None:
            problems.append(f"cluster {name}: no endpoints")
    return tuple(problems)


def _managers(resources: ResourceSet) -> list[tuple[str, Any]]:
    found = []
    for name, listener in _unpacked(resources, LISTENER, listener_pb2.Listener):
        config = listener.api_listener.api_listener
        if not listener.HasField("api_listener"):
            config = listener.filter_chains[0].filters[0].typed_config
        manager = http_connection_manager_pb2.HttpConnectionManager()
        config.Unpack(manager)
        found.append((name, manager))
    return found


def _unpacked(resources: ResourceSet, type_url: str, message: Any) -> list[tuple[str, Any]]:
    return [(name, message.FromString(r.body.value)) for name, r in resources.by_type[type_url].items()]
