"""What tests ask replicas, over any channel."""

from __future__ import annotations

import grpc


async def who(channel: grpc.aio.Channel, *metadata: tuple[str, str]) -> str:
    """Who answers; the code's name where nobody does."""
    try:
        return (await channel.unary_unary("/test.Replica/Who")(b"", timeout=3, metadata=metadata)).decode()
    except grpc.aio.AioRpcError as error:
        return error.code().name


async def answers(channel: grpc.aio.Channel, calls: int = 12) -> set[str]:
    """Everyone who answers a few calls."""
    return {await who(channel) for _ in range(calls)}


def stream(channel: grpc.aio.Channel) -> grpc.aio.UnaryStreamCall:
    """A stream of twenty messages over two seconds."""
    return channel.unary_stream("/test.Replica/Stream")(b"", timeout=20)


async def rest(call: grpc.aio.UnaryStreamCall) -> list[bytes]:
    """The messages that are left, to the stream's good end; raises where it ends otherwise."""
    messages = []
    while (message := await call.read()) is not grpc.aio.EOF:
        messages.append(message)
    return messages
