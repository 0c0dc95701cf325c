"""What the core needs from outside."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from headrace.common.v1.generation_pb2 import Disclosure
from headrace.router.v1 import router_pb2


class RouterCall(Protocol):
    """One generation under way at a router."""

    @property
    def disclosure(self) -> Disclosure | None:
        """What was done so far; complete once `messages` has ended, also when it ended in an error."""
        ...

    def messages(self) -> AsyncGenerator[router_pb2.GenerateResponse, None]:
        """The answer as it comes. Iterate once; closing the iterator cancels the call. Raises MeshError."""
        ...


class Router(Protocol):
    """Where generations are made."""

    def generate(self, request: router_pb2.GenerateRequest, timeout_s: float) -> RouterCall:
        """Begin a generation that ends within `timeout_s`."""
        ...

    async def list_models(self, timeout_s: float) -> Sequence[router_pb2.Model]:
        """The public models. Raises MeshError."""
        ...
