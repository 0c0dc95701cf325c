"""Many streams at once: tokens a second carried, and when the first one arrives.

    python -m bench.gateway_path.streaming URL KEY STREAMS

runs in a process of its own and prints JSON. Tokens are taken from each stream's own usage.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.parse

import uvloop

_REQUEST_TIMEOUT_S = 120


async def _read(url: str, key: str) -> tuple[float, float, int]:
    """When the first token and the end came, and how many tokens there were."""
    parts = urllib.parse.urlsplit(url)
    question = {
        "model": "steady",
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


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
