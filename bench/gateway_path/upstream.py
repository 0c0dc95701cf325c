"""A provider that always gives the same completion: what the peers are put in front of.

python -m bench.gateway_path.upstream PORT
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

_COMPLETION = json.dumps(
    {
        "id": "chatcmpl-static",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "static",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "water flows past the mill and turns the wheel again"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 11, "total_tokens": 23},
    }
).encode()
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(_COMPLETION),
    _COMPLETION,
)


class _Connection(asyncio.Protocol):
    """Answers each request as soon as its body is there."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head := self._buffer.find(b"\r\n\r\n")) >= 0:
            fields = bytes(self._buffer[:head]).lower()
            start = fields.find(b"content-length:")
            length = int(fields[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
            if start < 0 and b"chunked" in fields:
                last = self._buffer.find(b"\r\n0\r\n\r\n", head)
                if last < 0:
                    return
                length = last + 7 - head - 4
            if len(self._buffer) < head + 4 + length:
                return
            del self._buffer[: head + 4 + length]
            self._transport.write(_ANSWER)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
