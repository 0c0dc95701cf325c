"""How another service asks it: an adapter of the caller's, in front of mesh.client."""

from collections.abc import AsyncIterator
from typing import Any

from echo.contract import pb, pb_grpc
from mesh.client import ServiceClient


class EchoClient:
    """Asks whichever replica's turn it is. Raises MeshError."""

    def __init__(self, peers: ServiceClient) -> None:
        self._peers = peers

    async def say(self, text: str, timeout_s: float) -> str:
        """The text, asked again elsewhere where a replica fails."""

        async def ask(stub: Any, left_s: float) -> Any:
            return await stub.Say(pb.SayRequest(text=text), timeout=left_s)

        answer = await self._peers.call(pb_grpc.EchoStub, ask, timeout_s, safe=True)
        return str(answer.text)

    async def spell(self, text: str, timeout_s: float) -> AsyncIterator[str]:
        """The text's words as they come."""
        stub = self._peers.next().stub(pb_grpc.EchoStub)
        async for answer in stub.Spell(pb.SayRequest(text=text), timeout=timeout_s):
            yield answer.text
