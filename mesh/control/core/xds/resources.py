"""xDS resources by type and name, each with a hash of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import any_pb2
from google.protobuf.message import Message

CLUSTER: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS: Final = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER: Final = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTES: Final = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

# The order in which types are sent, so that nothing refers to what has not been sent yet.
ORDER: Final = (CLUSTER, ENDPOINTS, LISTENER, ROUTES)

# Resources whose names begin so are Envoy's. They alone answer a subscription to everything: Envoy has no use for the
# listeners of proxyless clients, which ask by name.
EDGE_PREFIX: Final = "edge/"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as it goes over the wire."""

    body: any_pb2.Any
    digest: str


@dataclass(frozen=True, slots=True)
class ResourceSet:
    """Everything that clients can ask for, of one snapshot."""

    version: str
    by_type: Mapping[str, Mapping[str, Resource]]

    def get(self, type_url: str, name: str) -> Resource | None:
        """The resource of that name; None where there is none."""
        return self.by_type[type_url].get(name)

    def wildcard(self, type_url: str) -> Iterable[str]:
        """The names that a subscription to everything stands for."""
        return [name for name in self.by_type[type_url] if name.startswith(EDGE_PREFIX)]


def pack(message: Message) -> any_pb2.Any:
    """The message as Any, the same bytes for the same content."""
    packed = any_pb2.Any()
    packed.Pack(message, deterministic=True)
    return packed


def resource_set(version: str, messages: Iterable[Any]) -> ResourceSet:
    """Pack clusters, endpoints, listeners and routes. Two of one type and name are a defect and raise ValueError."""
    by_type: dict[str, dict[str, Resource]] = {type_url: {} for type_url in ORDER}
    for message in messages:
        body = pack(message)
        name = message.cluster_name if body.type_url == ENDPOINTS else message.name
        if name in by_type[body.type_url]:
            raise ValueError(f"two resources {name!r} of type {body.type_url}")
        by_type[body.type_url][name] = Resource(body, hashlib.sha256(body.value).hexdigest()[:16])
    return ResourceSet(version, by_type)
