"""The composition root: builds the adapters and hands them to the core."""

from __future__ import annotations

import random

from headrace.router.v1 import router_pb2_grpc
from mesh.clock import SYSTEM
from mesh.discovery import SnapshotWatcher, registration
from mesh.lifecycle import Service
from mesh.resilience import Endpoints, LoadShed, RetryBudgets
from mesh.watched_file import WatchedFile
from router.adapters.metrics import PrometheusMetrics
from router.adapters.nodes import NodeClient
from router.adapters.peers import Peers
from router.adapters.replica_watcher import ReplicaWatcher
from router.adapters.routing_file import calibrations_of, read
from router.config import RouterConfig
from router.core.attempts import Dispatch
from router.core.breaker_feed import BreakerFeed
from router.core.decision_trace import Recent
from router.core.fleet import Fleet
from router.core.mirroring import Mirrors
from router.core.poison_guard import PoisonGuard
from router.core.router import Router, policies_of
from router.core.selector import Selector
from router.servicer import RouterServicer


async def build(config: RouterConfig) -> Service:
    """A router, ready to run. Raises FileErrors when the routing file cannot be used."""
    file = WatchedFile(
        "routing", config.config, read, interval_s=config.reload_s, beside=lambda r: calibrations_of(config.config, r)
    )
    routing = file.load()
    service = Service(config, ("headrace.router.v1.Router",), blockers=("first_snapshot",))
    service.registration = registration(config, kind="router")
    breaker_feed = BreakerFeed()
    breaker, retry = policies_of(routing.catalog)
    endpoints = Endpoints(breaker, on_change=breaker_feed.changed)
    nodes = NodeClient(config.dial)
    fleet = Fleet(endpoints)
    metrics, chance = PrometheusMetrics(), random.Random()  # noqa: S311 - spreading load needs no secrecy
    mirrors = Mirrors(nodes, metrics, SYSTEM, chance)
    selector = Selector(fleet, routing.catalog.ramp, chance)
    dispatch = Dispatch(RetryBudgets(retry), selector, nodes, mirrors, metrics, SYSTEM, PoisonGuard(SYSTEM))
    router = Router(dispatch, fleet, routing, Recent(config.recent))
    servicer = RouterServicer(
        router, breaker_feed, LoadShed(config.max_inflight), clock=SYSTEM, default_deadline_s=config.default_deadline_s
    )
    router_pb2_grpc.add_RouterServicer_to_server(servicer, service.server.grpc)

    watcher = SnapshotWatcher(config.control)
    replica_watcher = ReplicaWatcher(watcher, fleet, nodes, SYSTEM)
    service.background("snapshot", watcher.run())
    service.starting("first_snapshot", replica_watcher.first())
    service.background("replica_watcher", replica_watcher.run())
    peers = Peers(watcher, router, config.replica, config.dial, SYSTEM)
    service.background("peers", peers.run())
    service.follow(file, router.use, router.refuse)
    service.drains.append(breaker_feed.end)
    service.closing(nodes.close)
    service.closing(mirrors.close)
    return service
