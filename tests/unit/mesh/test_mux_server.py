"""The answering side of a stream whose messages take their time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from headrace.mesh.v1 import mux_pb2 as pb
from mesh.mux.protocol import WINDOW_BYTES
from mesh.mux.server import MuxServicer


class SlowStream:
    """A stream that one call was asked on. Each message is under way until `through` lets it arrive."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[pb.CarryRequest] = asyncio.Queue()
        self.asked.put_nowait(pb.CarryRequest(asks=[pb.Ask(id=1, method="/m", timeout_micros=60_000_000)]))
        self.through = asyncio.Semaphore(1)
        self.under_way = asyncio.Event()
        self.arrived: list[pb.CarryResponse] = []

    async def read(self) -> pb.CarryRequest:
        return await self.asked.get()

    async def write(self, response: pb.CarryResponse) -> None:
        if response.pieces:
            self.under_way.set()
        await self.through.acquire()
        self.arrived.append(response)


async def settle() -> None:
    """Let everyone do what they can without another's help."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_stream_that_is_closed_ends_behind_the_answers_on_it() -> None:
    over = asyncio.Event()

    async def pieces(_request: bytes, context) -> AsyncIterator[bytes]:
        context.add_done_callback(lambda _: over.set())
        yield b"first"
        yield b"last"

    async def find(_method: str) -> grpc.RpcMethodHandler:
        return grpc.unary_stream_rpc_method_handler(pieces, request_deserializer=bytes, response_serializer=bytes)

    servicer, stream = MuxServicer(find), SlowStream()
    carried = asyncio.create_task(servicer.Carry(stream, stream))
    async with asyncio.timeout(30):
        # The first piece is on its way, and the call is over for who handled it.
        await stream.under_way.wait()
        await over.wait()
        servicer.close()
        await settle()
        for _ in range(3):
            stream.through.release()
        await carried
    assert [(piece.part, piece.HasField("end")) for response in stream.arrived for piece in response.pieces] == [
        (b"first", False),
        (b"last", True),
    ]


async def test_a_stream_that_is_closed_waits_for_an_answer_that_its_caller_has_no_room_for_yet() -> None:
    answer = b"x" * (WINDOW_BYTES + 1)

    async def whole(_request: bytes, _context) -> bytes:
        return answer

    async def find(_method: str) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(whole, request_deserializer=bytes, response_serializer=bytes)

    servicer, stream = MuxServicer(find), SlowStream()
    for _ in range(10):
        stream.through.release()
    carried = asyncio.create_task(servicer.Carry(stream, stream))
    async with asyncio.timeout(30):
        await stream.under_way.wait()
        servicer.close()
        await settle()
        stream.asked.put_nowait(pb.CarryRequest(credits=[pb.Credit(id=1, bytes=WINDOW_BYTES)]))
        await carried
    pieces = [piece for response in stream.arrived for piece in response.pieces]
    assert b"".join(piece.part for piece in pieces) == answer
    assert pieces[-1].HasField("end")
