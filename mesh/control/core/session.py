"""One xDS client's state: what it asked for, what it was sent, what it acknowledged or refused.

State of the world over one aggregated stream (https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol):
answers carry everything that is asked for of a type. The version is a hash of just that, so a client hears only of
what concerns it, and a control plane that starts anew gives the same versions for the same content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from mesh.control.core.xds.resources import CLUSTER, LISTENER, ORDER, ResourceSet
from mesh.errors import InvalidArgument

MAX_NAMES: Final = 4096
_MAX_NACK_CHARS: Final = 2000
_WILDCARD_TYPES: Final = (CLUSTER, LISTENER)


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sends. `error` is None in an acknowledgement or a first request, else why it refuses."""

    type_url: str
    names: tuple[str, ...]
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """What a client is sent: the names of the resources, to be taken from the set that made it."""

    type_url: str
    version: str
    nonce: str
    names: tuple[str, ...]


@dataclass(slots=True)
class Subscription:
    """One type's part of a session."""

    type_url: str
    names: tuple[str, ...] = ()
    wildcard: bool = False
    nonce: str = ""
    sent_version: str = ""
    acked_version: str = ""
    nacked_version: str = ""
    nack_message: str = ""
    # What the client has been sent, by name; "" stands for "there is none".
    sent: dict[str, str] | None = field(default=None)


class Session:
    """Feed it requests, ask it what is due. Nothing is due twice: a refused version is not sent again."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, Subscription] = {}
        self._count = 0

    def subscriptions(self) -> Iterable[Subscription]:
        """What the client is subscribed to, in the order of sending."""
        return [self._subscriptions[t] for t in ORDER if t in self._subscriptions]

    def receive(self, request: Request) -> str | None:
        """Take a request in; returns the client's words where it refused something.

        Types that the mesh does not have are ignored, as are answers to anything but the newest response. Raises
        InvalidArgument when too many resources are asked for.
        """
        if request.type_url not in ORDER:
            return None
        if len(request.names) > MAX_NAMES:
            raise InvalidArgument(f"at most {MAX_NAMES} resources of one type", field="resource_names")
        subscription = self._subscriptions.get(request.type_url)
        if subscription is None:
            # Only a first request without names means everything; later ones have given their names back.
            subscription = Subscription(request.type_url, wildcard=_wants_all(request, first=True))
            self._subscriptions[request.type_url] = subscription
        elif request.nonce != subscription.nonce:
            return None
        elif subscription.nonce:
            _answer(subscription, request.error)
        subscription.wildcard = _wants_all(request, first=subscription.wildcard)
        subscription.names = tuple(sorted(set(request.names) - {"*"}))
        if subscription.sent is not None and not subscription.wildcard:
            # What a client gives back it forgets: asked for again it is sent again.
            subscription.sent = {n: d for n, d in subscription.sent.items() if n in subscription.names}
        return request.error

    def due(self, resources: ResourceSet) -> Iterator[Response]:
        """What the client has to be told now, type by type, so that nothing comes before what it refers to."""
        for subscription in self.subscriptions():
            wanted = _wanted(subscription, resources)
            if subscription.sent is None or _differs(wanted, subscription):
                yield self._send(subscription, wanted)

    def _send(self, subscription: Subscription, wanted: dict[str, str]) -> Response:
        self._count += 1
        subscription.sent = wanted
        subscription.nonce = str(self._count)
        subscription.sent_version = _version(wanted)
        there = tuple(name for name, digest in wanted.items() if digest)
        return Response(subscription.type_url, subscription.sent_version, subscription.nonce, there)


def _wants_all(request: Request, *, first: bool) -> bool:
    return request.type_url in _WILDCARD_TYPES and ("*" in request.names or (first and not request.names))


def _answer(subscription: Subscription, error: str | None) -> None:
    if error is None:
        subscription.acked_version = subscription.sent_version
        subscription.nacked_version = subscription.nack_message = ""
    else:
        subscription.nacked_version = subscription.sent_version
        subscription.nack_message = error[:_MAX_NACK_CHARS]


def _wanted(subscription: Subscription, resources: ResourceSet) -> dict[str, str]:
    names = set(subscription.names)
    if subscription.wildcard:
        names.update(resources.wildcard(subscription.type_url))
    found = {name: resources.get(subscription.type_url, name) for name in sorted(names)}
    return {name: resource.digest if resource else "" for name, resource in found.items()}


def _differs(wanted: Mapping[str, str], subscription: Subscription) -> bool:
    """Whether something wanted has not been sent yet, or, of everything, something sent is gone.

    A client that only asks for less is not answered: it knows.
    """
    sent = subscription.sent or {}
    gone = subscription.wildcard and wanted.keys() != sent.keys()
    return gone or any(sent.get(name) != digest for name, digest in wanted.items())


def _version(wanted: Mapping[str, str]) -> str:
    text = "\n".join(f"{name} {digest}" for name, digest in wanted.items())
    return hashlib.sha256(text.encode()).hexdigest()[:16]
