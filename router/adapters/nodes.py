"""Inference nodes over gRPC, and a watch over every stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc

from headrace.inference.v1 import inference_pb2, inference_pb2_grpc
from headrace.router.v1 import router_pb2
from mesh import telemetry
from mesh.client import Connection, Connections, Dial
from mesh.clock import Deadline
from mesh.errors import DeadlineExceeded, MeshError, StreamCut, Unavailable, from_rpc_error
from router.core import progress
from router.core.catalog import Timers
from router.core.fleet import Candidate, Replica
from router.core.progress import Progress
from router.core.token_estimate import tokens_of

_METHOD: Final = "/headrace.inference.v1.Inference/Generate"
# How long a node's trailers may take after its summary.
_FINISH_S: Final = 1.0
# How long a stream of a replica that others find silent may be silent itself.
_SUSPECT_S: Final = 0.5
# In gRPC's words, a call that never reached anybody.
_CONNECTING: Final = "failed to connect"
# gRPC's own deadline comes a little after ours, which knows what to say.
_MARGIN_S: Final = 0.05


class NodeClient:
    """Calls the nodes, each over a connection of its own: the router's core has chosen which."""

    def __init__(self, dial: Dial) -> None:
        self._connections = Connections(dial)
        # Streams under way, by replica.
        self._live: dict[str, set[WatchedStream]] = {}

    def stub(self, replica: Replica) -> inference_pb2_grpc.InferenceAsyncStub:
        """For everything but generations."""
        stub: inference_pb2_grpc.InferenceAsyncStub = self._of(replica).stub(inference_pb2_grpc.InferenceStub)
        return stub

    def open(
        self, candidate: Candidate, request: inference_pb2.GenerateRequest, timers: Timers, deadline: Deadline
    ) -> WatchedStream:
        """See router.core.ports.Nodes."""
        connection = self._of(candidate.replica)
        metadata = telemetry.outgoing_metadata(request.context.tenant)
        call = connection.stub(_generate)(request, timeout=deadline.left() + _MARGIN_S, metadata=metadata)
        live = self._live.setdefault(candidate.replica.id, set())
        return WatchedStream(call, connection.channel, timers, deadline, live)

    def suspect(self, replica: Replica) -> None:
        """The control plane hears nothing of the replica any more: end those of its streams that are silent too."""
        for stream in tuple(self._live.get(replica.id, ())):
            stream.suspect(replica)

    def avoid_streams(self, names: frozenset[str]) -> None:
        """Call these services and replicas call by call: the data plane has faults to put into them."""
        self._connections.faulted = names

    def drop(self, replica: Replica) -> None:
        """The replica left: let its streams end, then close."""
        self._live.pop(replica.id, None)
        self._connections.drop(replica.id, replica.address)

    async def close(self) -> None:
        """Close all, ending every stream."""
        await self._connections.close()

    def _of(self, replica: Replica) -> Connection:
        return self._connections.of(replica.id, replica.address, replica.service)


def _generate(connection: Connection) -> Callable[..., Any]:
    """A node's messages are read as the router's, whose fields 1 and 2 are the same: they are never rebuilt."""
    return connection.unary_stream(
        _METHOD,
        request_serializer=inference_pb2.GenerateRequest.SerializeToString,
        response_deserializer=router_pb2.GenerateResponse.FromString,
    )


class WatchedStream:
    """One stream and its timers. Implements router.core.ports.NodeStream."""

    __slots__ = ("_call", "_channel", "_deadline_at", "_error", "_live", "_look", "_loop", "_progress", "_timer")

    def __init__(
        self, call: Any, channel: grpc.aio.Channel, timers: Timers, deadline: Deadline, live: set[WatchedStream]
    ) -> None:
        self._live = live
        live.add(self)
        self._call = call
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._deadline_at = now + deadline.left()
        self._progress = Progress(timers, now)
        self._error: MeshError | None = None
        self._look: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._arm()

    async def read(self) -> router_pb2.GenerateResponse | None:
        """See NodeStream."""
        while True:
            try:
                message = await self._call.read()
            except asyncio.CancelledError:
                self._stop()
                task = asyncio.current_task()
                # gRPC reports a call that we cancelled as if we had been: only our task knows better.
                if self._error is not None and not (task and task.cancelling()):
                    raise self._error from None
                raise
            except grpc.aio.AioRpcError as error:
                self._stop()
                raise _known(error) from error
            if message is grpc.aio.EOF:
                self._stop()
                return None
            if message.deltas or message.HasField("summary"):
                self._progress.note(self._loop.time(), tokens_of(message))
                return message  # type: ignore[no-any-return]  # the deserializer's type
            if message.HasField("progress"):
                self._progress.waits(self._loop.time())
                return message  # type: ignore[no-any-return]  # as above

    def finish(self) -> None:
        """See NodeStream. Waiting for the node's last word would only keep the caller from having ours."""
        self._stop()
        # The timer holds the call, which gRPC would cancel when it is forgotten.
        self._loop.call_later(_FINISH_S, self._call.cancel)

    def cancel(self) -> None:
        """See NodeStream."""
        self._stop()
        self._call.cancel()

    def suspect(self, replica: Replica) -> None:
        """While the replica stays unhealthy, end the stream when nothing comes for half a second."""
        self._loop.call_later(_SUSPECT_S, self._unless_moved, replica, self._progress.last_at)

    def _unless_moved(self, replica: Replica, seen: float) -> None:
        if self not in self._live or replica.healthy:
            return
        if self._progress.last_at == seen:
            self._late("REPLICA_UNHEALTHY")
        else:
            self.suspect(replica)

    def _stop(self) -> None:
        self._live.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _arm(self) -> None:
        at = min(self._progress.look_at(self._loop.time()), self._deadline_at)
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        now = self._loop.time()
        if now >= self._deadline_at:
            self._expire(DeadlineExceeded("the request's time is over"))
            return
        due, reason = self._progress.due()
        if due > now:
            self._arm()
        elif reason in (progress.CONNECT, progress.HEADERS):
            self._look = self._loop.create_task(self._see(reason))
        else:
            self._late(reason)

    async def _see(self, reason: str) -> None:
        """Look how far the connection is, now that it matters; asking before would cost every request a task."""
        connected = self._channel.get_state() is grpc.ChannelConnectivity.READY
        headers = self._loop.create_task(self._call.initial_metadata())
        # Headers that are there are given at once; one turn of the loop is enough to know.
        await asyncio.wait((headers,), timeout=0.001)
        there = headers.done() and not headers.cancelled() and headers.exception() is None
        headers.cancel()
        self._look = None
        self._progress.reached(connected=connected, headers=there)
        _, still = self._progress.due()
        if still == reason and not self._progress.first_at:
            self._late(reason)
        else:
            self._arm()

    def _late(self, reason: str) -> None:
        cls = StreamCut if self._progress.first_at else Unavailable
        self._expire(cls("no data received from the node", reason=reason))

    def _expire(self, error: MeshError) -> None:
        self._error = error
        self._call.cancel()


def _known(error: grpc.aio.AioRpcError) -> MeshError:
    """What the node meant. That a node cancelled a call which we did not is its fault, not the caller's."""
    if error.code() is grpc.StatusCode.CANCELLED:
        return Unavailable("the node gave the call up", reason="PEER_CANCELLED")
    known = from_rpc_error(error)
    if type(known) is Unavailable and known.reason == Unavailable.default_reason and _CONNECTING not in known.message:
        # It was there, and had the call.
        return Unavailable(f"the connection to the node was lost: {known.message}", reason="CONNECTION_LOST")
    return known
