"""Requests that mean no good, by kind, and clients that hold what they are given."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

CHAT = "/v1/chat/completions"
# A real model: whatever reaches its tokenizer does harm.
MODEL = "smollm2-135m-instruct"
_ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
_MEGABYTE = 1024 * 1024


def ask(**changes: Any) -> bytes:
    return json.dumps(_ASK | changes).encode()


def history(arguments: str = "{}", result: str = "r", call_id: str = "a") -> bytes:
    """A conversation with a call and its result."""
    call = {"id": call_id, "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": result},
    ]
    return ask(messages=messages)


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f"} | function}


# Of these a few are read to the end, and more of them are closed upon.
TOO_LARGE = "a body too large"
_DEEP = '{"a":' * 5000 + "1" + "}" * 5000
_WORDS = "word " * 900_000
_GZIP = {"content-encoding": "gzip"}

# The kinds: headers beside the key and the type, and the body. Each is the caller's fault and is told so.
KINDS: dict[str, tuple[dict[str, str], bytes]] = {
    "half a pair in arguments": ({}, history('{"s":"\\ud83d"}')),
    "deep arguments": ({}, history(_DEEP)),
    "a deep tool result": ({}, history(result="[" * 3000 + "]" * 3000)),
    "half a pair in a tool result": ({}, history(result='{"s":"\\udc00"}')),
    "a number without end": ({}, history('{"n":' + "9" * 100_000 + "}")),
    "half a pair in the body": ({}, ask().replace(b'"hi"', b'"\\ud83d"')),
    "a deep body": ({}, b'{"prediction":' + b'{"a":' * 100_000),
    "a deep schema": ({}, ask(tools=[tool(parameters=json.loads('{"a":' * 200 + "1" + "}" * 200))])),
    "NaN": ({}, ask(logit_bias={"1": float("nan")})),
    "a prompt of megabytes": ({}, ask(messages=[{"role": "user", "content": _WORDS}])),
    "tools of megabytes": ({}, ask(tools=[tool(description=_WORDS)])),
    "very many messages": ({}, ask(messages=[{"role": "user", "content": ""}] * 60_000)),
    "very many values": ({}, b'{"model":"m","messages":[' + b"1," * 1_000_000 + b"1]}"),
    "a bomb": (_GZIP, gzip.compress(bytes(64 * _MEGABYTE))),
    "what is not gzip": (_GZIP, ask()),
    "an unknown encoding": ({"content-encoding": "br"}, ask()),
    "no JSON": ({}, b"\xff" * 300_000),
    TOO_LARGE: ({}, b" " * (9 * _MEGABYTE)),
    "no key": ({"authorization": ""}, ask(messages=[{"role": "user", "content": _WORDS}])),
    "a model that is not there": ({}, ask(model="x" * 200)),
    "a schema that is none": ({}, ask(tools=[tool(parameters={"type": "no"})], tool_choice="required")),
    "many choices of nothing": ({}, ask(n=33)),
    "an endless stop": ({}, ask(stop=["x" * 100_000])),
}


async def stalled(address: tuple[str, int], length: int) -> socket.socket:
    """A connection without a key whose body of that length is sent as far as it is taken, and never ended."""
    sock = socket.create_connection(address)
    sock.setblocking(False)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    await _push(sock, head.encode() + b" " * (length - 1))
    return sock


async def flooding(address: tuple[str, int], streams: int) -> socket.socket:
    """One HTTP/2 connection without a key: so many requests, each with the body that its window lets through."""
    sock = socket.create_connection(address)
    sock.setblocking(False)
    await _push(sock, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b""))
    # Literal fields, none of them indexed.
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": CHAT,
        ":authority": "a",
        "content-type": "application/json",
    }
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )
    for number in range(1, 2 * streams, 2):
        await _push(sock, _frame(1, 4, number, block))
    # More than what a connection may have under way ends it, which is well.
    for number in range(1, 2 * streams, 2):
        await _push(sock, _frame(0, 0, number, b" " * 1024))
    return sock


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


async def _push(sock: socket.socket, data: bytes) -> None:
    """Send what is taken: nothing more for a moment means that the other side reads no further, or has gone."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(TimeoutError, OSError):
        view = memoryview(data)
        while view:
            async with asyncio.timeout(0.3):
                await loop.sock_sendall(sock, view[:65536])
            view = view[65536:]


@contextlib.asynccontextmanager
async def holding(address: tuple[str, int], lengths: list[int], streams: int) -> AsyncIterator[None]:
    """All of them at once, for as long as the block takes."""
    opened = await asyncio.gather(*(stalled(address, length) for length in lengths), flooding(address, streams))
    try:
        yield
    finally:
        for sock in opened:
            sock.close()
