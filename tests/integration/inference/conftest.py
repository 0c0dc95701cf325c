"""Real nodes: one with the static engine per test, in this process; one with llama.cpp for all, as a process."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from headrace.common.v1 import chat_pb2, generation_pb2
from headrace.inference.v1 import inference_pb2 as pb
from headrace.inference.v1.inference_pb2_grpc import InferenceStub
from inference.app import build
from inference.config import config_type
from mesh.channel import open_channel
from mesh.config import load
from mesh.lifecycle import Service

ROOT = Path(__file__).resolve().parents[3]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A real model computes for seconds, which take longer the more a machine has to do."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(400))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for the condition, long enough for a machine that is busy with other things."""
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.002)


@dataclass
class Node:
    """A node under test."""

    stub: InferenceStub
    service: Service | None = None
    # The process's exit code, once it has ended.
    running: asyncio.Task[int] | None = None

    async def load(self) -> pb.WatchLoadResponse:
        """The first report of the load."""
        call = self.stub.WatchLoad(pb.WatchLoadRequest())
        report = await call.read()
        call.cancel()
        return report

    async def idle(self) -> bool:
        """Whether no slot is in use and nobody waits."""
        load = await self.load()
        return load.running == 0 and load.queued == 0


def static_node(**settings: object) -> AbstractAsyncContextManager[Node]:
    """A node with the static engine, ready."""
    return node_of("static", **settings)


@asynccontextmanager
async def node_of(engine: str, **settings: object) -> AsyncIterator[Node]:
    """A node with that engine, ready."""
    env = {"HEADRACE_INFERENCE_ENGINE": engine, "HEADRACE_INFERENCE_DRAIN_DELAY_S": "0"}
    env |= {f"HEADRACE_INFERENCE_{name.upper()}": str(value) for name, value in settings.items()}
    service = await build(load(config_type(env), "HEADRACE_INFERENCE_", env))
    running = asyncio.create_task(service.run())
    while not service.readiness.ready:
        assert not running.done()
        await asyncio.sleep(0.001)
    channel = open_channel(f"127.0.0.1:{service.server.port}")
    try:
        yield Node(InferenceStub(channel), service, running)
    finally:
        await channel.close()
        service.stop()
        await running


@pytest.fixture
async def static() -> AsyncIterator[Node]:
    async with static_node() as node:
        yield node


@pytest.fixture(scope="session")
def llamacpp_address() -> Iterator[str]:
    """Where a node with llama.cpp and SmolLM2 listens."""
    env = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos' / 'gen'}",
        "HEADRACE_INFERENCE_ENGINE": "llamacpp",
        "HEADRACE_INFERENCE_MAX_RUNNING": "4",
        "HEADRACE_INFERENCE_MAX_QUEUED": "4",
        "HEADRACE_INFERENCE_CONTEXT_LENGTH": "1024",
        "HEADRACE_INFERENCE_DRAIN_DELAY_S": "0",
    }
    with subprocess.Popen([sys.executable, "-m", "inference"], env=env, cwd=ROOT, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            port = _wait_ready(iter(process.stderr.readline, b""))
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.stderr.read()
            assert process.wait(timeout=60) == 0


def _wait_ready(lines: Iterator[bytes]) -> int:
    port = 0
    for line in lines:
        event = json.loads(line)
        if event["event"] == "service.started":
            port = event["port"]
        if event["event"] == "health.changed" and event["ready"]:
            return port
    raise AssertionError("the node ended before it was ready")


@pytest.fixture
async def llamacpp(llamacpp_address: str) -> AsyncIterator[Node]:
    channel = open_channel(llamacpp_address)
    yield Node(InferenceStub(channel))
    await channel.close()


def chat(text: str, **sampling: object) -> pb.GenerateRequest:
    """One question of one user; greedy unless told otherwise."""
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=text)])
    return pb.GenerateRequest(
        context=generation_pb2.RequestContext(request_id="r-1", tenant="t-1"),
        generation=generation_pb2.Generation(
            prompt=chat_pb2.Prompt(chat=chat_pb2.ChatPrompt(messages=[message])),
            sampling=generation_pb2.Sampling(**{"temperature": 0.0, **sampling}),
        ),
    )


@dataclass
class Answer:
    """A finished stream, put together."""

    responses: list[pb.GenerateResponse]

    def text(self, index: int = 0) -> str:
        return "".join(d.text for r in self.responses for d in r.deltas if d.index == index)

    def tokens(self, index: int = 0) -> list[int]:
        return [t for r in self.responses for d in r.deltas if d.index == index for t in d.token_ids]

    def finishes(self, index: int = 0) -> list[int]:
        return [d.finish_reason for r in self.responses for d in r.deltas if d.index == index and d.finish_reason]

    def logprobs(self, index: int = 0) -> list[generation_pb2.TokenLogprob]:
        return [entry for r in self.responses for d in r.deltas if d.index == index for entry in d.logprobs]

    @property
    def summary(self) -> generation_pb2.GenerationSummary:
        assert self.responses[-1].HasField("summary")
        assert not any(r.HasField("summary") for r in self.responses[:-1])
        return self.responses[-1].summary


async def ask(node: Node, request: pb.GenerateRequest, within_s: float = 200.0) -> Answer:
    """The whole answer."""
    return Answer([response async for response in node.stub.Generate(request, timeout=within_s)])


async def refused(node: Node, request: pb.GenerateRequest) -> grpc.aio.AioRpcError:
    """The error that the request ends in."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(node, request)
    return caught.value
