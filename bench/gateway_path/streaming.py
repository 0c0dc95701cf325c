"""Many streams at once: tokens a second carried, and when the first one arrives.

    python -m bench.gateway_path.streaming URL KEY STREAMS [SECONDS]

Without SECONDS all streams begin at the same moment and are read once, from a node that makes more than can be carried.
With them, so many streams are kept open for so long: each begins another when it ends, their beginnings are spread, and
the node makes 40,000 tokens a second over 64 of them. Its engine gives the first token at once, so what that waits for
is the way through the mesh.

It runs in a process of its own and prints JSON. Tokens are taken from each stream's own usage.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.parse

import uvloop

_REQUEST_TIMEOUT_S = 120
# How long an answer of the paced node takes, as bench/gateway_path/stack.yaml has it.
_STREAM_S = 2.0


async def _read(url: str, key: str, model: str = "steady") -> tuple[float, float, int]:
    """How long the first token took, when the end came, and how many tokens there were."""
    parts = urllib.parse.urlsplit(url)
    question = {
        "model": model,
        "messages": [{"role": "user", "content": "Say something long."}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body = json.dumps(question).encode()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 22)
    started = time.perf_counter()
    writer.write(
        b"POST %s HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer %s\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (f"{parts.path}/chat/completions".encode(), key.encode(), len(body), body)
    )
    first, tail, received = 0.0, b"", 0
    # Reading whole socket buffers, not lines: what is measured is the mesh, not this reader.
    while b"data: [DONE]" not in tail:
        data = await reader.read(1 << 18)
        if not data:
            raise RuntimeError(f"a stream was cut after {received} bytes")
        received += len(data)
        tail = tail[-2048:] + data
        if not first and b'"content":"' in tail:
            first = time.perf_counter() - started
    writer.close()
    at = tail.rindex(b'"completion_tokens":') + len(b'"completion_tokens":')
    return first, time.perf_counter(), int(tail[at:].split(b",")[0].split(b"}")[0])


async def measure(url: str, key: str, streams: int) -> dict[str, float]:
    """Read so many streams from beginning to end, all at the same time."""
    started = time.perf_counter()
    async with asyncio.timeout(_REQUEST_TIMEOUT_S):
        ends = await asyncio.gather(*(_read(url, key) for _ in range(streams)))
    seconds = max(end for _, end, _ in ends) - started
    firsts = sorted(first for first, _, _ in ends)
    tokens = sum(count for _, _, count in ends)
    return {"tok_s": tokens / seconds, "first_token_p50_ms": firsts[len(firsts) // 2] * 1e3, "tokens": tokens}


async def measure_steady(url: str, key: str, streams: int, seconds: float) -> dict[str, float]:
    """Keep so many streams open; the first of each is warm-up and does not count."""
    firsts: list[float] = []
    rates: list[float] = []
    stop_at = time.perf_counter() + seconds

    async def keep(place: int) -> None:
        await asyncio.sleep(place / streams * _STREAM_S)
        await _read(url, key, "paced")
        while (began := time.perf_counter()) < stop_at:
            first, ended, count = await _read(url, key, "paced")
            firsts.append(first)
            rates.append(count / (ended - began))

    async with asyncio.timeout(_REQUEST_TIMEOUT_S):
        await asyncio.gather(*(keep(place) for place in range(streams)))
    firsts.sort()
    return {
        "tok_s": streams * sum(rates) / len(rates),
        "first_token_p50_ms": firsts[len(firsts) // 2] * 1e3,
        "first_token_p99_ms": firsts[len(firsts) * 99 // 100] * 1e3,
        "streams": len(firsts),
    }


def main() -> None:
    url, key, streams = sys.argv[1], sys.argv[2], int(sys.argv[3])
    steady = measure_steady(url, key, streams, float(sys.argv[4])) if len(sys.argv) > 4 else None
    print(json.dumps(uvloop.run(steady or measure(url, key, streams))))


if __name__ == "__main__":
    main()
