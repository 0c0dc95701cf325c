"""What the core asks of the outside."""

from __future__ import annotations

from typing import Protocol

from headrace.inference.v1 import inference_pb2
from headrace.router.v1 import router_pb2
from mesh.clock import Deadline
from router.core.catalog import Timers
from router.core.fleet import Candidate


class NodeStream(Protocol):
    """One generation under way at one node."""

    async def read(self) -> router_pb2.GenerateResponse | None:
        """The next message that carries something, or says how far its generation is; None at the end of one with OK.

        Nodes' messages are read as the router's own, which hold the same fields: they are passed on as they came.
        Raises MeshError: the node's own, or that of a timer, whose reason then names the timer.
        """
        ...

    def finish(self) -> None:
        """Its last message was read: it may end by itself, within a second. Nothing is read after that."""
        ...

    def cancel(self) -> None:
        """End it at the node. May be called at any time and twice."""
        ...


class Nodes(Protocol):
    """The inference nodes."""

    def open(
        self, candidate: Candidate, request: inference_pb2.GenerateRequest, timers: Timers, deadline: Deadline
    ) -> NodeStream:
        """Start a generation. Returns at once; what fails, fails when reading."""
        ...


class Metrics(Protocol):
    """What is counted, beside what every call of the mesh counts."""

    def attempt(self, deployment: str, cause: str, outcome: str) -> None:
        """One attempt has ended."""
        ...

    def cascade(self, model: str, *, escalated: bool) -> None:
        """A cascade has decided about one answer."""
        ...

    def cascade_saved(self, model: str, micro_usd: int) -> None:
        """A cascade's answer cost so much less than the last member's would have."""
        ...
