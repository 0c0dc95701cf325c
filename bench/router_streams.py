"""How fast a router passes streams on, and what it adds to one request: three processes on loopback.

A node that answers at once, a router, and a client; every hop's cost is the difference to asking the node directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog

from headrace.common.v1 import generation_pb2 as common
from headrace.control.v1 import control_pb2, control_pb2_grpc
from headrace.inference.v1 import inference_pb2, inference_pb2_grpc
from headrace.router.v1 import router_pb2, router_pb2_grpc
from mesh.channel import open_channel
from mesh.health import Readiness
from mesh.lifecycle import Service
from mesh.server import Server
from router.app import build
from router.config import RouterConfig

STREAMS, TOKENS = 64, 2_000
# What a busy node sends: 20 ms of tokens in one message. At 40,000 tokens/s and 64 streams that is 12 or 13 each.
PER_MESSAGE = 12
REQUESTS = 400
ROUTING = """
deployments: [{name: d, service: nodes, model: m}]
models: [{name: pub, chain: [d]}]
"""


class _Node(inference_pb2_grpc.InferenceServicer, control_pb2_grpc.ControlServicer):
    """A node that never thinks, and the control plane that knows of it."""

    def __init__(self) -> None:
        self.snapshot = control_pb2.Snapshot(version="1")

    async def WatchSnapshot(self, request: Any, context: Any) -> AsyncIterator[control_pb2.WatchSnapshotResponse]:
        yield control_pb2.WatchSnapshotResponse(snapshot=self.snapshot)
        await asyncio.Event().wait()

    async def Describe(self, request: Any, context: Any) -> inference_pb2.DescribeResponse:
        return inference_pb2.DescribeResponse(models=[inference_pb2.ModelCard(name="m", revision="r")])

    async def WatchLoad(self, request: Any, context: Any) -> AsyncIterator[inference_pb2.WatchLoadResponse]:
        yield inference_pb2.WatchLoadResponse(capacity=STREAMS)
        await asyncio.Event().wait()

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        count = request.generation.sampling.max_tokens
        part = common.ChoiceDelta(token_ids=range(PER_MESSAGE), text=" token" * PER_MESSAGE)
        for _ in range(0, count, PER_MESSAGE):
            yield inference_pb2.GenerateResponse(deltas=[part])
        yield inference_pb2.GenerateResponse(
            deltas=[common.ChoiceDelta(finish_reason=common.FINISH_REASON_LENGTH)],
            summary=common.GenerationSummary(usage=common.Usage(completion_tokens=count)),
        )


def _serve_node(pipe: Connection) -> None:
    async def serve() -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        server, node = Server("127.0.0.1:0", Readiness(), ()), _Node()
        inference_pb2_grpc.add_InferenceServicer_to_server(node, server.grpc)
        control_pb2_grpc.add_ControlServicer_to_server(node, server.grpc)
        port = await server.start()
        service = node.snapshot.services.add(name="nodes", kind="inference")
        service.replicas.add(id="n0", address=f"127.0.0.1:{port}", health=control_pb2.HEALTH_HEALTHY)
        pipe.send(port)
        await asyncio.to_thread(pipe.recv)
        await server.grpc.stop(0)

    asyncio.run(serve())


def _serve_router(pipe: Connection, control: int, folder: str) -> None:
    async def serve() -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        file = Path(folder) / "router.yaml"
        file.write_text(ROUTING)
        config = RouterConfig(config=file, control=f"127.0.0.1:{control}", dial="address", drain_delay_s=0.0)
        service: Service = await build(config)
        task = asyncio.create_task(service.run())
        while not service.readiness.ready:  # noqa: ASYNC110 - a bench may poll
            await asyncio.sleep(0.01)
        pipe.send(service.server.port)
        await asyncio.to_thread(pipe.recv)
        service.stop()
        await task

    import uvloop  # noqa: PLC0415 - the loop that services run on

    uvloop.run(serve())


@contextlib.contextmanager
def _process(target: Any, *arguments: Any) -> Iterator[int]:
    """A process that serves; gives its port."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=target, args=(theirs, *arguments))
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("stop")
        process.join(10)


async def _consume(generate: Any, request: Any) -> int:
    tokens = 0
    async for message in generate(request, timeout=60):
        for delta in message.deltas:
            tokens += len(delta.token_ids)
    return tokens


async def _throughput(generate: Any, request: Any) -> float:
    """Tokens a second over all streams."""
    started = time.perf_counter()
    counts = await asyncio.gather(*(_consume(generate, request) for _ in range(STREAMS)))
    return sum(counts) / (time.perf_counter() - started)


async def _milliseconds(generate: Any, request: Any) -> float:
    """The median duration of one short request."""
    taken = []
    for _ in range(REQUESTS):
        started = time.perf_counter()
        await _consume(generate, request)
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken[REQUESTS // 10 :])


def _request(cls: Any, model: str, tokens: int) -> Any:
    request = cls()
    request.context.tenant, request.context.request_id = "t", "r"
    request.generation.model = model
    request.generation.prompt.text = "hello"
    request.generation.sampling.max_tokens = tokens
    return request


async def forward() -> list[dict[str, Any]]:
    """Direct and through the router, one after the other."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _process(_serve_node) as node_port,
        _process(_serve_router, node_port, folder) as router_port,
    ):
        async with open_channel(f"127.0.0.1:{node_port}") as node, open_channel(f"127.0.0.1:{router_port}") as router:
            direct = inference_pb2_grpc.InferenceStub(node).Generate
            routed = router_pb2_grpc.RouterStub(router).Generate
            rows = []
            for name, generate, cls, model in (
                ("direct", direct, inference_pb2.GenerateRequest, "m"),
                ("routed", routed, router_pb2.GenerateRequest, "pub"),
            ):
                median = await _milliseconds(generate, _request(cls, model, PER_MESSAGE))
                rate = await _throughput(generate, _request(cls, model, TOKENS))
                rows.append((name, median, rate))
    print(f"\n{f'{STREAMS} streams, {PER_MESSAGE} tokens a message':32} {'p50 ms':>8} {'tokens/s':>10}")
    for name, median, rate in rows:
        print(f"{name:32} {median:8.2f} {rate:10.0f}")
    added = rows[1][1] - rows[0][1]
    return [
        {"name": "router_added_p50_ms", "value": round(added, 2), "unit": "ms", "direct": round(rows[0][1], 2)},
        {"name": "router_stream_tok_s_64", "value": round(rows[1][2]), "unit": "tok/s", "target": 40_000},
    ]
