"""Proto to domain and back. Errors, deadlines, logs, metrics, traces and streams' ends are the server's."""

from collections.abc import AsyncIterator
from typing import Any

from echo.contract import pb, pb_grpc
from echo.core.echoing import Echoing


class EchoServicer(pb_grpc.EchoServicer):
    """Answers for one process."""

    def __init__(self, echoing: Echoing) -> None:
        self._echoing = echoing

    async def Say(self, request: Any, context: Any) -> Any:
        """See the contract."""
        return pb.SayResponse(text=self._echoing.say(request.text))

    async def Spell(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """See the contract."""
        for word in self._echoing.words(request.text):
            yield pb.SayResponse(text=word)
