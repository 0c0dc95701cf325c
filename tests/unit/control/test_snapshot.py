"""From what sources say to a consistent snapshot and its resources."""

import contextlib
import dataclasses

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from hypothesis import given
from hypothesis import strategies as st

from mesh.control.core.faults import FaultRegistry
from mesh.control.core.model import Fault, Health, HealthVerdict, Snapshot
from mesh.control.core.xds.build import build_resources, dangling
from mesh.control.core.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ORDER, ROUTES, Resource, ResourceSet
from mesh.errors import MeshError

from .builders import HEALTHY, snapshot, stack

GONE = HealthVerdict(Health.UNHEALTHY, "gone")


def render(of: Snapshot, faults_on: bool = True) -> ResourceSet:
    return build_resources(of, 100, faults_on=faults_on)


def ports(resources: ResourceSet, name: str) -> list[int]:
    resource = resources.get(ENDPOINTS, name)
    assert resource is not None
    assignment = endpoint_pb2.ClusterLoadAssignment.FromString(resource.body.value)
    return [e.endpoint.address.socket_address.port_value for p in assignment.endpoints for e in p.lb_endpoints]


def test_only_healthy_replicas_are_endpoints_and_every_name_is_there() -> None:
    verdicts = {"small-0": HEALTHY, "small-1": GONE, "gateway-0": HEALTHY}
    resources = render(snapshot(stack(gateway=2, small=3, none=0), verdicts))
    assert ports(resources, "small") == [21000]
    assert ports(resources, "small-0") == [21000]
    assert (ports(resources, "small-1"), ports(resources, "small-2"), ports(resources, "none")) == ([], [], [])
    assert (ports(resources, "edge/gateway-http"), ports(resources, "edge/gateway-grpc")) == ([20500], [20000])
    for name in ("none", "small", "small-2", "gateway-1"):
        assert all(resources.get(type_url, name) for type_url in ORDER)


def test_a_stack_without_an_edge_has_nothing_for_envoy() -> None:
    resources = render(snapshot(stack(edge=False, gateway=1)))
    assert [list(resources.wildcard(t)) for t in (CLUSTER, LISTENER)] == [[], []]


def test_the_version_is_the_contents() -> None:
    one, other = (snapshot(stack(small=2)) for _ in range(2))
    assert one.version == other.version
    assert snapshot(stack(small=3)).version != one.version
    assert snapshot(stack(small=2), {"small-0": HEALTHY}).version != one.version
    assert snapshot(stack(small=2), faults=(Fault("f", "small", abort_code=14),)).version != one.version


def test_health_and_faults_never_touch_listeners() -> None:
    """Envoy drains the connections of a listener that is replaced."""
    base = render(snapshot(stack(gateway=1, small=1)))
    faults = (Fault("f", "edge", abort_code=14), Fault("g", "small", delay_s=1.0, tenant="t"))
    changed = render(snapshot(stack(gateway=1, small=1), {"small-0": GONE}, faults))
    assert changed.by_type[LISTENER] == base.by_type[LISTENER]
    assert changed.by_type[CLUSTER] == base.by_type[CLUSTER]
    assert changed.by_type[ROUTES] != base.by_type[ROUTES]


def test_faults_are_set_per_tenant_and_replica() -> None:
    faults = (
        Fault("a", "small", abort_code=14, percent=12.5),
        Fault("b", "small", replica="small-0", delay_s=0.25),
        Fault("c", "small", abort_code=8, tenant="acme"),
    )
    resources = render(snapshot(stack(small=2), faults=faults))

    def settings(name: str) -> list[tuple[str, list[str]]]:
        resource = resources.get(ROUTES, name)
        assert resource is not None
        routes = route_pb2.RouteConfiguration.FromString(resource.body.value).virtual_hosts[0].routes
        tenant = [r.match.headers[0].string_match.exact if r.match.headers else "" for r in routes]
        return [(t, sorted(r.typed_per_filter_config)) for t, r in zip(tenant, routes, strict=True)]

    assert settings("small") == [("acme", ["fault-0", "fault-1"]), ("", ["fault-0"])]
    assert settings("small-0") == [("acme", ["fault-0", "fault-1", "fault-2"]), ("", ["fault-0", "fault-1"])]
    assert settings("small-1") == settings("small")


def test_without_faults_switched_on_no_filter_is_in_the_path() -> None:
    resource = render(snapshot(stack(small=1)), faults_on=False).get(LISTENER, "small")
    assert resource is not None
    assert b"fault" not in listener_pb2.Listener.FromString(resource.body.value).api_listener.api_listener.value


def test_what_dangles_is_named() -> None:
    good = render(snapshot(stack(gateway=1, small=1)))
    assert dangling(good) == ()

    def without(type_url: str, name: str) -> ResourceSet:
        kept = {n: r for n, r in good.by_type[type_url].items() if n != name}
        return dataclasses.replace(good, by_type={**good.by_type, type_url: kept})

    assert dangling(without(ENDPOINTS, "small")) == ("cluster small: no endpoints",)
    assert dangling(without(ROUTES, "small")) == ("listener small: no routes small",)
    assert "routes small-0: no cluster small-0" in dangling(without(CLUSTER, "small-0"))
    faulty = render(snapshot(stack(small=1), faults=(Fault("f", "small", abort_code=14),)), faults_on=False)
    assert dangling(faulty) == ("routes small: no filter fault-0", "routes small-0: no filter fault-0")


FAULTS = st.builds(
    Fault,
    id=st.sampled_from(["", "x", "y"]),
    service=st.sampled_from(["gateway", "small", "large", "edge", "nobody"]),
    replica=st.sampled_from(["", "", "small-0", "large-1"]),
    abort_code=st.integers(-1, 18),
    delay_s=st.sampled_from([0.0, 0.5, -1.0, 1e9]),
    percent=st.sampled_from([0.0, 0.001, 50.0, 100.0, 101.0, float("nan")]),
    tenant=st.sampled_from(["", "acme", "other", "\n"]),
    lasts_s=st.sampled_from([60.0, 0.0, 1e6]),
)
COUNTS = st.fixed_dictionaries({name: st.integers(0, 4) for name in ("gateway", "small", "large")})
VERDICTS = st.dictionaries(
    st.sampled_from([f"{s}-{i}" for s in ("gateway", "small", "large") for i in range(4)]),
    st.sampled_from(list(Health)).map(HealthVerdict),
)


@given(st.lists(st.tuples(COUNTS, VERDICTS, st.lists(FAULTS, max_size=12)), min_size=1, max_size=4), st.booleans())
def test_any_history_of_updates_gives_consistent_snapshots(history, edge: bool) -> None:
    """Nothing dangles, endpoints are the healthy ones, and equal contents are equal versions, whatever came before."""
    book = FaultRegistry()
    for counts, verdicts, faults in history:
        of = stack(edge=edge, **counts)
        for fault in faults:
            with contextlib.suppress(MeshError):
                book.put(fault, snapshot(of), now=0.0)
        current = snapshot(of, verdicts, book.all())
        resources = render(current)
        assert dangling(resources) == ()
        assert current.version == snapshot(of, verdicts, book.all()).version
        for service in current.services:
            healthy = [r.port("grpc") for r in service.replicas if r.healthy]
            assert ports(resources, service.name) == healthy
            assert all(ports(resources, r.id) == ([r.port("grpc")] if r.healthy else []) for r in service.replicas)


def test_clusters_bound_what_is_under_way() -> None:
    resources = render(snapshot(stack(gateway=1)))
    for name, resource in resources.by_type[CLUSTER].items():
        assert isinstance(resource, Resource)
        cluster = cluster_pb2.Cluster.FromString(resource.body.value)
        assert cluster.circuit_breakers.thresholds[0].max_requests.value == 100, name
