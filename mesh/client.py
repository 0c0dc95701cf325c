"""The one client for a peer service: which replica is asked, over what, with metrics and the trace of every call.

`Connections` holds one connection to each replica that a process knows; who chooses among replicas by itself, as the
router does among nodes, uses those alone. `ServiceClient` chooses: the replicas of one service, taken from the control
plane's snapshot, in turn. Unary calls go through its `call`, which is the resilience stack.

gRPC spreads calls over a name's replicas by itself, but a stream that carries calls (mesh.mux) lies on one of them for
good: that is why each replica gets a way of its own.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final, Literal, TypeVar

import grpc
import structlog

from headrace.control.v1 import control_pb2
from mesh import telemetry
from mesh.channel import open_channel
from mesh.clock import SYSTEM, Clock, Deadline
from mesh.discovery import SnapshotWatcher, faulted
from mesh.mux import MuxChannel
from mesh.resilience import BreakerPolicy, Endpoints, LoadShed, ResilienceStack, RetryPolicy
from mesh.tasks import TaskSet

_log = structlog.get_logger()
T = TypeVar("T")
# How replicas are reached: by name through xDS, so that the snapshot's faults and limits apply, or by address.
Dial = Literal["xds", "address"]
Metadata = Iterable[tuple[str, str | bytes]]
XDS: Final = "xds:///"
# Calls to a replica that left go on to their end, for so long at most.
_LINGER_S: Final = 600.0
# Unary calls under way to one service.
_MAX_UNARY: Final = 1024


class Connection:
    """The way to one replica, or to whichever a target stands for. Stands where a channel does, for stubs.

    Every call made through it is counted (`headrace_rpc_seconds`, side client) when it ends and, unless it is given
    metadata, carries the request id and the trace of the call that is being served.
    """

    def __init__(self, target: str, carries: Callable[[], bool]) -> None:
        """`carries` says whether calls may go over a stream that carries many."""
        self.channel = open_channel(target)
        self._mux = MuxChannel(self.channel, carries)
        self._stubs: dict[Callable[[Any], Any], Any] = {}

    @property
    def up(self) -> bool:
        """Whether calls go over the stream now."""
        return self._mux.up

    def connect(self) -> None:
        """Begin to open the stream. Returns at once."""
        self._mux.connect()

    def stub(self, make: Callable[[Any], Any]) -> Any:
        """The stub that `make`, such as a generated class, makes on this; made once."""
        stub = self._stubs.get(make)
        if stub is None:
            stub = self._stubs[make] = make(self)
        return stub

    def unary_stream(self, method: str, *how: Any, **options: Any) -> Callable[..., Any]:
        """See grpc.aio.Channel."""
        return _counted(method, self._mux.unary_stream(method, *how, **options))

    def unary_unary(self, method: str, *how: Any, **options: Any) -> Callable[..., Any]:
        """See grpc.aio.Channel."""
        return _counted(method, self._mux.unary_unary(method, *how, **options))

    async def close(self, grace_s: float = 0.0) -> None:
        """Let calls end for at most `grace_s`, then cancel them."""
        await self._mux.close(grace_s)
        await self.channel.close(grace_s)


class Connections:
    """One connection for each replica, opened on first use, and closed some time after the replica left."""

    def __init__(self, dial: Dial, *, carried: bool = True) -> None:
        """`carried`: calls go over streams that carry many, where the data plane has no fault to put into them."""
        self._dial = dial
        self._carried = carried
        # The services and replicas under a fault of the data plane, which is to see every call of theirs.
        self.faulted: frozenset[str] = frozenset()
        # A replica that comes back elsewhere is a new one, while calls to the old one may still be ending.
        self._open: dict[tuple[str, str], Connection] = {}
        self._leaving = TaskSet()

    def of(self, replica: str, address: str, service: str) -> Connection:
        """The connection to a replica."""
        connection = self._open.get((replica, address))
        if connection is None:
            names = (replica, service)
            connection = self._open[replica, address] = Connection(
                f"{XDS}{replica}" if self._dial == "xds" else address,
                lambda: self._carried and (not self.faulted or self.faulted.isdisjoint(names)),
            )
        return connection

    def drop(self, replica: str, address: str) -> None:
        """The replica left: let its calls end, then close."""
        connection = self._open.pop((replica, address), None)
        if connection is not None:
            self._leaving.start(f"closing {replica}", connection.close(_LINGER_S))

    async def close(self) -> None:
        """Close all; calls under way are cancelled."""
        await self._leaving.close()
        for connection in self._open.values():
            await connection.close()
        self._open.clear()


class ServiceClient:
    """Calls one service: `target` is `xds:///name`, whose replicas `follow` takes from the snapshot, or host:port."""

    def __init__(
        self,
        target: str,
        dial: Dial = "xds",
        *,
        breaker: BreakerPolicy | None = None,
        retry: RetryPolicy | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._clock = clock
        self._stack = ResilienceStack(
            Endpoints(breaker or BreakerPolicy(), clock), shed=LoadShed(_MAX_UNARY), retry=retry, clock=clock
        )
        named = target.startswith(XDS)
        self._service = target.removeprefix(XDS) if named else ""
        # For calls while no replica has a stream that is up.
        self.all = Connection(target, carries=lambda: not named)
        self._target = target
        self._connections = Connections(dial)
        self._replicas: dict[tuple[str, str], Connection] = {}
        self._turn = 0
        self._faulted = False

    @property
    def up(self) -> int:
        """Replicas whose streams carry calls now."""
        return sum(connection.up for connection in self._replicas.values())

    def next(self) -> Connection:
        """Where the next call belongs."""
        return self._next()[1]

    async def call(
        self, make: Callable[[Any], Any], work: Callable[[Any, float], Awaitable[T]], timeout_s: float, *, safe: bool
    ) -> T:
        """Await `work(stub, timeout_s)`, one unary call, under the resilience stack.

        `make` makes the stub. `safe`: the call may be made again, and then asks the next replica. Raises MeshError.
        """
        deadline = Deadline(timeout_s, self._clock)
        chosen: list[Connection] = []

        def choose() -> str:
            name, connection = self._next()
            chosen[:] = [connection]
            return name

        return await self._stack.call(
            choose, lambda left_s: work(chosen[0].stub(make), left_s), deadline, retry_safe=safe
        )

    async def follow(self, watcher: SnapshotWatcher) -> None:
        """Keep to the snapshot until cancelled."""
        async for snapshot in watcher.updates():
            self._take(snapshot)

    async def close(self) -> None:
        """Close every connection; calls under way are cancelled."""
        await self._connections.close()
        await self.all.close()

    def _next(self) -> tuple[str, Connection]:
        if self._faulted:
            return self._target, self.all
        replicas = list(self._replicas.items())
        blocked: tuple[str, Connection] | None = None
        for _ in replicas:
            self._turn = (self._turn + 1) % len(replicas)
            (replica, _), connection = replicas[self._turn]
            if not connection.up:
                connection.connect()
            elif self._is_blocked(replica):
                blocked = replica, connection
            else:
                return replica, connection
        return blocked or (self._target, self.all)

    def _is_blocked(self, replica: str) -> bool:
        endpoint = self._stack.endpoints.find(replica)
        return endpoint is not None and endpoint.wait_s() > 0.0

    def _take(self, snapshot: control_pb2.Snapshot) -> None:
        service = next((s for s in snapshot.services if s.name == self._service), control_pb2.Service())
        there = {(r.id, r.address) for r in service.replicas if r.health == control_pb2.HEALTH_HEALTHY}
        # A fault hits call by call, and one on a single replica only where the data plane chooses among all.
        self._faulted = not faulted(snapshot).isdisjoint((self._service, *(r.id for r in service.replicas)))
        for replica, address in self._replicas.keys() - there:
            del self._replicas[replica, address]
            self._connections.drop(replica, address)
            self._stack.endpoints.forget(replica)
        for replica, address in there - self._replicas.keys():
            connection = self._replicas[replica, address] = self._connections.of(replica, address, self._service)
            connection.connect()
            _log.info("peer.found", service=self._service, replica=replica)


def _counted(method: str, make: Callable[..., Any]) -> Callable[..., Any]:
    def call(request: Any, *, metadata: Metadata | None = None, **options: Any) -> Any:
        made = make(request, metadata=telemetry.outgoing_metadata() if metadata is None else metadata, **options)
        made.add_done_callback(partial(_count, method, time.perf_counter()))
        return made

    return call


def _count(method: str, started: float, call: Any) -> None:
    telemetry.observe_rpc("client", method, _code(call), time.perf_counter() - started)


def _code(call: Any) -> str:
    """The status of a call that is over: gRPC gives it to those who await it, who then do not wait."""
    status = call.code()
    try:
        status.send(None)
    except StopIteration as given:
        code: grpc.StatusCode = given.value
        return code.name
    status.close()
    return grpc.StatusCode.UNKNOWN.name
