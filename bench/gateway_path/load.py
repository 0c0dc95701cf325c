"""HTTP load with little cost of its own: raw sockets, one request at a time on each of so many connections.

    python -m bench.gateway_path.load URL CLIENTS SECONDS HEADERS_JSON BODY

runs in a process of its own and prints what `Measured` holds as JSON. A request counts when its whole answer has
arrived. The first tenth of the time is warm-up and does not count.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import asdict, dataclass

_WARM_UP = 0.1


@dataclass(frozen=True, slots=True)
class Measured:
    """What so many clients saw. Latencies are in milliseconds."""

    p50_ms: float
    p99_ms: float
    rps: float
    requests: int
    errors: int


class _Client(asyncio.Protocol):
    """One connection that asks the same question again as soon as it is answered."""

    def __init__(self, request: bytes, stop_at: float, count_from: float) -> None:
        self._request, self._stop_at, self._count_from = request, stop_at, count_from
        self.latencies: list[float] = []
        self.errors = 0
        self.done = asyncio.get_running_loop().create_future()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if (end := _answer_end(self._buffer)) is None:
            return
        now = time.perf_counter()
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            self.errors += 1
        elif self._sent >= self._count_from:
            self.latencies.append(now - self._sent)
        del self._buffer[:end]
        if now < self._stop_at:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if time.perf_counter() < self._stop_at:
            self.errors += 1
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)


def _answer_end(buffer: bytearray) -> int | None:
    """Where the first answer in the buffer ends; None while it is not whole."""
    head = buffer.find(b"\r\n\r\n")
    if head < 0:
        return None
    fields = bytes(buffer[:head]).lower()
    start = fields.find(b"content-length:")
    if start >= 0:
        end = head + 4 + int(fields[start + 15 :].split(b"\r\n", 1)[0])
        return end if len(buffer) >= end else None
    # Chunked: the last chunk is empty.
    last = buffer.find(b"\r\n0\r\n\r\n", head)
    return last + 7 if last >= 0 else None


async def measure(url: str, clients: int, seconds: float, headers: Mapping[str, str], body: bytes) -> Measured:
    """Ask with so many clients for so long."""
    parts = urllib.parse.urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"host: {parts.netloc}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()] + [f"content-length: {len(body)}"]
    request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    started = time.perf_counter()
    stop_at, count_from = started + seconds, started + seconds * _WARM_UP
    loop = asyncio.get_running_loop()
    asking = [
        (await loop.create_connection(lambda: _Client(request, stop_at, count_from), parts.hostname, parts.port))[1]
        for _ in range(clients)
    ]
    await asyncio.wait_for(asyncio.gather(*(client.done for client in asking)), seconds + 30)
    latencies = sorted(latency for client in asking for latency in client.latencies)
    errors = sum(client.errors for client in asking)
    if not latencies:
        raise RuntimeError(f"{url}: no request was answered with 200; {errors} errors")
    return Measured(
        p50_ms=latencies[len(latencies) // 2] * 1e3,
        p99_ms=latencies[len(latencies) * 99 // 100] * 1e3,
        rps=len(latencies) / (seconds * (1 - _WARM_UP)),
        requests=len(latencies),
        errors=errors,
    )


def main() -> None:
    url, clients, seconds, headers, body = sys.argv[1:]
    measured = asyncio.run(measure(url, int(clients), float(seconds), json.loads(headers), body.encode()))
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    import uvloop

    uvloop.install()
    main()
