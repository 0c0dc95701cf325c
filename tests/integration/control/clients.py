"""What tests ask replicas, over any channel."""

from __future__ import annotations

import grpc

from .conftest import until

# So long only because a call has to have an end: nothing that is tested takes seconds.
LONG_S = 60.0


async def who(channel: grpc.aio.Channel, *metadata: tuple[str, str], timeout_s: float = LONG_S) -> str:
    """Who answers; the code's name where nobody does."""
    try:
        return (await channel.unary_unary("/test.Replica/Who")(b"", timeout=timeout_s, metadata=metadata)).decode()
    except grpc.aio.AioRpcError as error:
        return error.code().name


async def answers(channel: grpc.aio.Channel, calls: int = 12) -> set[str]:
    """Everyone who answers a few calls."""
    return {await who(channel) for _ in range(calls)}


async def reaches(channel: grpc.aio.Channel, *expected: str) -> float:
    """Return when these and no others answer: a channel uses the first connection while it makes the next."""

    async def does() -> bool:
        return await answers(channel) == set(expected)

    return await until(does, f"traffic to {expected}")


def stream(channel: grpc.aio.Channel) -> grpc.aio.UnaryStreamCall:
    """A stream of twenty messages over two seconds."""
    return channel.unary_stream("/test.Replica/Stream")(b"", timeout=LONG_S)


async def rest(call: grpc.aio.UnaryStreamCall) -> list[bytes]:
    """The messages that are left, to the stream's good end; raises where it ends otherwise."""
    messages = []
    while (message := await call.read()) is not grpc.aio.EOF:
        messages.append(message)
    return messages
