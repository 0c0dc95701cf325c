"""What is there to choose from: replicas with their load, and candidates, which are deployments on replicas."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from mesh.resilience import Endpoint, Endpoints
from router.core.catalog import Deployment, Ramp
from router.core.latency import Latency
from router.core.pacing import Pacer

# What is assumed of a replica that has not reported its load yet.
_UNKNOWN_CAPACITY: Final = 8


@dataclass(frozen=True, slots=True)
class Card:
    """What a replica says of a model that it serves."""

    revision: str
    context: int
    capabilities: frozenset[str]
    # Opaque; whoever has the same one shares a provider's account and its limits. Empty: none.
    account: str = ""


class Replica:
    """One process that serves models. Its load is what it reported last, and what this router has done since."""

    __slots__ = (
        *("address", "capacity", "cards", "draining", "healthy", "id", "inflight", "joined_at", "kv_used"),
        *("outstanding", "pacer", "queued", "running", "service", "tokens_per_second", "_inflight_then"),
    )

    def __init__(self, replica_id: str, service: str, address: str, joined_at: float) -> None:
        self.id = replica_id
        self.service = service
        self.address = address
        self.joined_at = joined_at
        self.healthy = True
        self.draining = False
        self.queued = 0
        self.running = 0
        self.capacity = _UNKNOWN_CAPACITY
        self.tokens_per_second = 0.0
        self.kv_used = 0.0
        self.inflight = 0
        # Requests that it has now, as far as can be known: a report is up to 250 ms old.
        self.outstanding = 0
        self.cards: dict[str, Card] = {}
        self.pacer = Pacer()
        self._inflight_then = 0

    def report(
        self, *, queued: int, running: int, capacity: int, tokens_per_second: float, kv_used: float, draining: bool
    ) -> None:
        """Take in a load report."""
        self.queued, self.running = queued, running
        self.capacity = capacity or _UNKNOWN_CAPACITY
        self.tokens_per_second, self.kv_used, self.draining = tokens_per_second, kv_used, draining
        self._inflight_then = self.inflight
        self.moved(0)

    def moved(self, by: int) -> None:
        """An attempt of this router's has begun (1) or ended (-1) there."""
        self.inflight += by
        self.outstanding = max(self.inflight, self.queued + self.running + self.inflight - self._inflight_then)


class Candidate:
    """A deployment on one replica: what a request can be sent to.

    What choosing looks at lies in plain attributes: a decision reads those of every candidate.
    """

    __slots__ = (
        *(
            "account",
            "account_peers",
            "can_continue",
            "can_resume",
            "context",
            "deployment",
            "deployment_hash",
            "endpoint",
            "hash",
            "key",
            "price",
            "replica",
        ),
        *("revision", "ttft"),
    )

    def __init__(self, deployment: Deployment, replica: Replica, endpoint: Endpoint) -> None:
        self.deployment = deployment
        self.replica = replica
        self.endpoint = endpoint
        self.key = key_of(deployment, replica.id)
        self.hash = hash_of(replica.id)
        self.deployment_hash = hash_of(deployment.name)
        self.price = deployment.price.input + deployment.price.output
        self.ttft = Latency()
        # Those who share this candidate's account, itself included; see Fleet.
        self.account_peers: tuple[Endpoint, ...] = ()
        self.describe()

    def describe(self) -> None:
        """Take over what the replica says of the model; the routing file's word goes before it."""
        card = self.replica.cards.get(self.deployment.model)
        # Of the weights; empty while unknown.
        self.revision = self.deployment.revision or (card.revision if card else "")
        # In tokens; 0 while unknown.
        self.context = self.deployment.context or (card.context if card else 0)
        able = self.deployment.capabilities | (card.capabilities if card else frozenset())
        # Whether it goes on from tokens, or from a text, that others emitted.
        self.can_resume = "resume" in able
        self.can_continue = "continue_text" in able
        self.account = card.account if card else ""

    def share(self, now: float, ramp: Ramp) -> float:
        """How much of its full share it gets: less than 1 for a while after it joined or recovered."""
        since = max(self.replica.joined_at, self.endpoint.breaker.recovered_at)
        if now >= since + ramp.seconds:
            return 1.0
        return ramp.start + (1.0 - ramp.start) * (now - since) / ramp.seconds


class Fleet:
    """All candidates. Updated from the control plane's snapshot and from the routing file; never shrinks by itself."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self.replicas: dict[str, Replica] = {}
        # Moves with every change of the members; whatever was worked out from them is then out of date.
        self.version = 0
        self._by_deployment: dict[str, tuple[Candidate, ...]] = {}
        self._candidates: dict[str, Candidate] = {}
        self._deployments: tuple[Deployment, ...] = ()
        self._services: frozenset[str] = frozenset()

    def candidates(self, deployment: str) -> tuple[Candidate, ...]:
        """The deployment's candidates."""
        return self._by_deployment.get(deployment, ())

    def use(self, deployments: Iterable[Deployment]) -> None:
        """Take over the routing file's deployments."""
        self._deployments = tuple(deployments)
        self._rebuild()

    def seen(self, replicas: Mapping[str, tuple[str, str]], now: float) -> tuple[list[Replica], list[Replica]]:
        """Take over who is there: replica id to (service, address). Returns who came and who went."""
        gone = [r for r in self.replicas.values() if replicas.get(r.id) != (r.service, r.address)]
        for replica in gone:
            del self.replicas[replica.id]
        came = []
        for replica_id, (service, address) in replicas.items():
            if replica_id not in self.replicas:
                # The first of a service have nobody to learn the load from, and nobody to share it with.
                joined = now if service in self._services else float("-inf")
                self.replicas[replica_id] = Replica(replica_id, service, address, joined)
                came.append(self.replicas[replica_id])
        self._services |= {service for service, _ in replicas.values()}
        if came or gone:
            self._rebuild()
        return came, gone

    def judged(self, replica: Replica, healthy: bool, now: float) -> bool:
        """Take over whether a replica takes work; one that does again is brought up slowly. Whether that is news."""
        if replica.healthy == healthy:
            return False
        replica.healthy = healthy
        if healthy:
            replica.joined_at = now
        return True

    def described(self, replica: Replica, cards: dict[str, Card]) -> None:
        """Take over what a replica says of its models."""
        replica.cards = cards
        for candidate in self._candidates.values():
            if candidate.replica is replica:
                candidate.describe()
        self._share_accounts()

    def _rebuild(self) -> None:
        kept: dict[str, Candidate] = {}
        table: dict[str, tuple[Candidate, ...]] = {}
        by_service: dict[str, list[Replica]] = {}
        for replica in self.replicas.values():
            by_service.setdefault(replica.service, []).append(replica)
        for deployment in self._deployments:
            row = [self._candidate(deployment, replica) for replica in by_service.get(deployment.service, ())]
            table[deployment.name] = tuple(row)
            kept.update((candidate.key, candidate) for candidate in row)
        for key in self._candidates.keys() - kept.keys():
            self.endpoints.forget(key)
        self._candidates, self._by_deployment = kept, table
        self.version += 1
        self._share_accounts()

    def _share_accounts(self) -> None:
        """Tell every candidate who has the same account: what a provider says of its limits holds for all of them."""
        peers: dict[str, list[Endpoint]] = {}
        for candidate in self._candidates.values():
            if candidate.account:
                peers.setdefault(candidate.account, []).append(candidate.endpoint)
        for candidate in self._candidates.values():
            candidate.account_peers = tuple(peers.get(candidate.account, ()))

    def _candidate(self, deployment: Deployment, replica: Replica) -> Candidate:
        key = key_of(deployment, replica.id)
        old = self._candidates.get(key)
        if old is not None and old.replica is replica and old.deployment == deployment:
            return old
        return Candidate(deployment, replica, self.endpoints.of(key))


def key_of(deployment: Deployment, replica_id: str) -> str:
    """The name under which a deployment's replica is known to breakers and back-pressure, on every router."""
    return f"{deployment.name}/{replica_id}"


def hash_of(name: str) -> int:
    """64 bits, the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
