"""The composition root: builds the adapters and hands them to the core."""

from __future__ import annotations

import random

from headrace.router.v1 import router_pb2_grpc
from mesh.clock import SYSTEM
from mesh.config import ConfigErrors
from mesh.discovery import SnapshotWatcher, registration
from mesh.lifecycle import Service
from mesh.resilience import Guards, LoadShed, Stack
from router.adapters.metrics import PrometheusMetrics
from router.adapters.nodes import ReplicaChannels
from router.adapters.peers import Peers
from router.adapters.presence import Presence
from router.adapters.reload import Reload
from router.adapters.routing_file import RoutingFileError, read
from router.config import RouterConfig
from router.core.choosing import Chooser
from router.core.fleet import Fleet
from router.core.mirroring import Mirrors
from router.core.opinions import Opinions
from router.core.router import Router, policies_of
from router.core.steps import Recent
from router.core.tries import Dispatch
from router.servicer import RouterServicer


async def build(config: RouterConfig) -> Service:
    """A router, ready to run. Raises ConfigErrors when the routing file cannot be used."""
    try:
        routing = read(config.config)
    except RoutingFileError as error:
        raise ConfigErrors(str(error).splitlines()) from error
    service = Service(config, ("headrace.router.v1.Router",), blockers=("first_snapshot",))
    service.registration = registration(config, kind="router")
    opinions = Opinions()
    breaker, retry = policies_of(routing.catalog)
    stack = Stack(Guards(breaker, on_change=opinions.changed), shed=LoadShed(config.max_inflight), retry=retry)
    channels = ReplicaChannels(config.dial)
    fleet = Fleet(stack.guards)
    metrics, chance = PrometheusMetrics(), random.Random()  # noqa: S311 - spreading load needs no secrecy
    mirrors = Mirrors(channels, metrics, SYSTEM, chance)
    chooser = Chooser(fleet, routing.catalog.ramp, chance)
    dispatch = Dispatch(stack, chooser, channels, mirrors, metrics, SYSTEM)
    router = Router(dispatch, fleet, routing, Recent(config.recent))
    servicer = RouterServicer(router, opinions, stack.shed, clock=SYSTEM, default_deadline_s=config.default_deadline_s)
    router_pb2_grpc.add_RouterServicer_to_server(servicer, service.server.grpc)

    watcher = SnapshotWatcher(config.control)
    presence = Presence(watcher, fleet, channels, SYSTEM)
    service.background("snapshot", watcher.run())
    service.starting("first_snapshot", presence.first())
    service.background("presence", presence.run())
    peers = Peers(watcher, router, config.replica, config.dial, SYSTEM)
    service.background("peers", peers.run())
    service.background("reload", Reload(config.config, router, config.reload_s, SYSTEM).run())
    service.drains.append(opinions.end)
    service.closing(channels.close)
    service.closing(mirrors.close)
    return service
