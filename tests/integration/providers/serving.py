"""A provider's HTTP server that sends exactly the bytes it was given, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
# With chunked encoding the end of the body is said, so that a cut shows.
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(value: Any, name: str = "") -> bytes:
    """One event of the stream."""
    data = value if isinstance(value, str) else json.dumps(value)
    return (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode()


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body; the empty one ends it."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def reply(status: int, body: Any = None, **headers: str) -> bytes:
    """A whole answer that is no stream."""
    payload = b"" if body is None else json.dumps(body).encode()
    fields = {"content-type": "application/json", "content-length": str(len(payload)), "connection": "close"} | headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + payload


@dataclass
class Asked:
    """One request as it came."""

    target: str
    headers: dict[str, str]
    body: Any


@dataclass
class Server:
    """What to send: bytes as they are, numbers as seconds to wait, None to keep the connection open in silence."""

    script: list[bytes | float | None]
    asked: list[Asked] = field(default_factory=list)
    # Set when the caller's end of a connection is gone.
    left: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    # Bytes that the caller's end, or the kernel for it, has taken.
    sent: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = [line.partition(": ") for line in head[1:] if line]
        headers = {name.lower(): value for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.asked.append(Asked(head[0].split(" ")[1], headers, json.loads(body or b"null")))
        try:
            for step in self.script:
                if step is None:
                    await reader.read()
                    self.left.set()
                elif isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    writer.write(step)
                    await writer.drain()
                    self.sent += len(step)
        except ConnectionError:
            self.left.set()
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serving(*script: bytes | float | None) -> AsyncIterator[Server]:
    """The server, on a free port of loopback."""
    server = Server(list(script))
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()
