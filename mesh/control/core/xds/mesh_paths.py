"""What proxyless gRPC clients ask for: `xds:///<service>` and `xds:///<replica id>`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from envoy.config.listener.v3 import api_listener_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.type.matcher.v3 import string_pb2

from mesh.control.core.model import Fault, Snapshot
from mesh.control.core.xds.endpoints import ads, load_assignment, mesh_cluster
from mesh.control.core.xds.faults import TENANT_HEADER, by_tenant, fault_settings, http_filters
from mesh.control.core.xds.resources import pack


def mesh_paths(snapshot: Snapshot, max_requests: int, *, faults_on: bool) -> Iterator[Any]:
    """Listener, routes, cluster and endpoints of every service and every replica, whether healthy or not."""
    for service in snapshot.services:
        of_service = tuple(f for f in snapshot.faults if f.service == service.name)
        to_all = tuple(f for f in of_service if not f.replica)
        yield from _path(service.name, to_all, faults_on=faults_on)
        yield mesh_cluster(service.name, max_requests, outliers=True)
        yield load_assignment(service.name, service.replicas)
        for replica in service.replicas:
            to_one = tuple(f for f in of_service if f.replica in ("", replica.id))
            yield from _path(replica.id, to_one, faults_on=faults_on)
            yield mesh_cluster(replica.id, max_requests, outliers=False)
            yield load_assignment(replica.id, (replica,))


def _path(name: str, faults: tuple[Fault, ...], *, faults_on: bool) -> Iterator[Any]:
    manager = http_connection_manager_pb2.HttpConnectionManager(
        rds=http_connection_manager_pb2.Rds(route_config_name=name, config_source=ads()),
        http_filters=http_filters(faults_on=faults_on),
    )
    yield listener_pb2.Listener(name=name, api_listener=api_listener_pb2.ApiListener(api_listener=pack(manager)))
    routes = [_route(name, tenant, hits) for tenant, hits in by_tenant(faults).items()]
    host = route_components_pb2.VirtualHost(name=name, domains=["*"], routes=routes)
    yield route_pb2.RouteConfiguration(name=name, virtual_hosts=[host])


def _route(cluster: str, tenant: str, faults: tuple[Fault, ...]) -> Any:
    match = route_components_pb2.RouteMatch(prefix="")
    if tenant:
        match.headers.append(tenant_matcher(tenant))
    return route_components_pb2.Route(
        match=match,
        route=route_components_pb2.RouteAction(cluster=cluster),
        typed_per_filter_config=fault_settings(faults, grpc=True),
    )


def tenant_matcher(tenant: str) -> Any:
    """Matches the calls made for one tenant."""
    return route_components_pb2.HeaderMatcher(name=TENANT_HEADER, string_match=string_pb2.StringMatcher(exact=tenant))
