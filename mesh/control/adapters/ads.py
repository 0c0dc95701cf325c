"""The aggregated discovery service: one stream per xDS client, Envoy and proxyless gRPC alike."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import prometheus_client
import structlog
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from mesh.clock import Clock
from mesh.control.core.publisher import Publisher
from mesh.control.core.session import Request, Response, Session
from mesh.control.core.xds.resources import ResourceSet
from mesh.errors import ResourceExhausted

_log = structlog.get_logger()
MAX_CLIENTS: Final = 1024
SERVICE_NAME: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"

_clients = prometheus_client.Gauge("headrace_control_xds_clients", "xDS clients with an open stream.")
_sent = prometheus_client.Counter("headrace_control_xds_responses", "Responses sent to xDS clients.", ("type",))
_nacks = prometheus_client.Counter("headrace_control_xds_nacks", "Responses refused by xDS clients.", ("type",))


@dataclass(slots=True)
class Client:
    """An xDS client with an open stream. `connected` is in seconds since the epoch."""

    connected: float
    node_id: str = ""
    user_agent: str = ""
    session: Session = field(default_factory=Session)
    # Set when there may be something to send.
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False


class Ads(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]  # the library ships no types
    """Sends each client what it asked for, when it changes. Only state of the world; deltas are refused by gRPC."""

    def __init__(self, publisher: Publisher, clock: Clock) -> None:
        self._publisher = publisher
        self._clock = clock
        self._clients: dict[int, Client] = {}
        self._numbers = itertools.count()
        self._closed = False

    def clients(self) -> list[Client]:
        """Those with an open stream, oldest first."""
        return list(self._clients.values())

    async def run(self) -> None:
        """Wake clients at each publication, until cancelled."""
        async for _ in self._publisher.updates():
            self._wake_all()

    async def close(self, _deadline_s: float) -> None:
        """End every stream; clients keep what they have and connect again."""
        self._closed = True
        for client in self._clients.values():
            client.over = True
        self._wake_all()

    async def StreamAggregatedResources(
        self, requests: AsyncIterator[Any], _context: object
    ) -> AsyncIterator[discovery_pb2.DiscoveryResponse]:
        """See the xDS protocol. Errors: RESOURCE_EXHAUSTED (too many clients), INVALID_ARGUMENT (too many names)."""
        if len(self._clients) >= MAX_CLIENTS:
            raise ResourceExhausted(f"at most {MAX_CLIENTS} xDS clients", reason="TOO_MANY_CLIENTS")
        key, client = next(self._numbers), Client(self._clock.wall(), over=self._closed)
        self._clients[key] = client
        _clients.set(len(self._clients))
        reader = asyncio.create_task(_read(requests, client))
        try:
            while not client.over:
                client.wake.clear()
                current = self._publisher.current
                if current is not None:
                    for response in client.session.due(current.resources):
                        _sent.labels(_short(response.type_url)).inc()
                        yield _message(response, current.resources)
                await client.wake.wait()
            if reader.done():
                await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            del self._clients[key]
            _clients.set(len(self._clients))

    def _wake_all(self) -> None:
        for client in self._clients.values():
            client.wake.set()


async def _read(requests: AsyncIterator[Any], client: Client) -> None:
    try:
        async for message in requests:
            if message.HasField("node"):
                client.node_id = message.node.id
                client.user_agent = f"{message.node.user_agent_name} {_agent_version(message.node)}".strip()
            refusal = client.session.receive(_request(message))
            if refusal is not None:
                _nacks.labels(_short(message.type_url)).inc()
                _log.warning("xds.refused", node=client.node_id, type=_short(message.type_url), message=refusal)
            client.wake.set()
    finally:
        client.over = True
        client.wake.set()


def _request(message: Any) -> Request:
    refused = message.HasField("error_detail")
    return Request(
        type_url=message.type_url,
        names=tuple(message.resource_names),
        nonce=message.response_nonce,
        error=message.error_detail.message if refused else None,
    )


def _message(response: Response, resources: ResourceSet) -> discovery_pb2.DiscoveryResponse:
    found = (resources.get(response.type_url, name) for name in response.names)
    return discovery_pb2.DiscoveryResponse(
        type_url=response.type_url,
        version_info=response.version,
        nonce=response.nonce,
        resources=[resource.body for resource in found if resource],
    )


def _agent_version(node: Any) -> str:
    version = node.user_agent_build_version.version
    if node.HasField("user_agent_build_version"):
        return f"{version.major_number}.{version.minor_number}.{version.patch}"
    return str(node.user_agent_version)


def _short(type_url: str) -> str:
    """The type's last word, from those that are known: labels are bounded."""
    return type_url.rpartition(".")[2][:64]
