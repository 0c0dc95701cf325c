"""A router over real gRPC on port 0, with scripted nodes and a scripted control plane."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import yaml

from headrace.common.v1 import generation_pb2 as common
from headrace.router.v1 import router_pb2 as pb
from headrace.router.v1 import router_pb2_grpc
from mesh.channel import open_channel
from mesh.errors import MeshError, from_rpc_error
from mesh.lifecycle import Service
from router.app import build
from router.config import RouterConfig
from tests.fakes.control import FakeControl
from tests.fakes.inference import FakeNode

# Longer than any pause of a busy machine, so that no timer runs out unless a test wants it to; and longer than any wait
# of a test, so that what a test waits for is never the work of a timer.
PATIENT_S = 40.0
PATIENT = {"connect_s": PATIENT_S, "headers_s": PATIENT_S, "first_token_s": PATIENT_S, "gap_s": PATIENT_S}
TIMERS = PATIENT | {"floor_tokens_per_s": 0}
WAIT_S = 20.0
DEPLOYMENT = {"name": "d", "service": "nodes", "model": "m"}
MODEL = {"name": "pub", "chain": ["d"]}


def routing(**changes: object) -> dict[str, object]:
    """A routing file with one deployment and one model; keys replace the defaults."""
    base: dict[str, object] = {
        "deployments": [DEPLOYMENT],
        "models": [MODEL],
        "timers": TIMERS,
        "ramp": {"seconds": 0},
    }
    return base | changes


@dataclass
class Answer:
    """What a caller saw."""

    messages: list[pb.GenerateResponse] = field(default_factory=list)
    error: MeshError | None = None
    trailers: dict[str, bytes] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "".join(d.text for m in self.messages for d in m.deltas if d.index == 0)

    def ids(self, index: int = 0) -> list[int]:
        return [i for m in self.messages for d in m.deltas if d.index == index for i in d.token_ids]

    @property
    def finishes(self) -> list[int]:
        return [d.finish_reason for m in self.messages for d in m.deltas if d.finish_reason]

    @property
    def disclosure(self) -> common.Disclosure:
        return common.Disclosure.FromString(self.trailers["headrace-disclosure-bin"])

    @property
    def causes(self) -> list[tuple[str, str, str]]:
        return [(a.cause, a.replica, a.reason) for a in self.disclosure.attempts]


@dataclass(frozen=True)
class Begun:
    """What has come of an answer so far, and the rest of it."""

    so_far: Answer
    rest: asyncio.Task[Answer]


@dataclass
class Running:
    """A router and its surroundings."""

    service: Service
    stub: router_pb2_grpc.RouterStub
    control: FakeControl
    path: Path

    def ask(self, prompt: str = "hello", *, within_s: float = 90.0, **options: object) -> grpc.aio.UnaryStreamCall:
        return self.stub.Generate(request_for(prompt, **options), timeout=within_s)

    async def answer(self, prompt: str = "hello", *, within_s: float = 90.0, **options: object) -> Answer:
        return await read(self.ask(prompt, within_s=within_s, **options))

    def begin(self, prompt: str = "hello", **options: object) -> Begun:
        """An answer that is read as it comes."""
        answer = Answer()
        return Begun(answer, asyncio.create_task(read(self.ask(prompt, **options), answer)))

    async def state(self) -> dict[str, pb.ReplicaState]:
        response = await self.stub.GetState(pb.GetStateRequest())
        return {f"{d.name}/{r.id}": r for d in response.deployments for r in d.replicas}

    async def until(self, holds: Callable[[dict[str, pb.ReplicaState]], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds(await self.state()):
                await asyncio.sleep(0.005)

    def rewrite(self, config: dict[str, object]) -> None:
        """Put another routing file in the place of the one in force, whole."""
        new = self.path.with_suffix(".new")
        new.write_text(yaml.safe_dump(config, sort_keys=False))
        new.replace(self.path)


def request_for(prompt: str, model: str = "pub", **options: object) -> pb.GenerateRequest:
    """A request; options are sampling fields, `labels`, `budget`, `context`, `chat`, and `whole` for the delivery."""
    request = pb.GenerateRequest()
    if options.pop("whole", False):
        request.delivery = pb.DELIVERY_WHOLE
    request.context.tenant = "t1"
    for name, value in options.pop("context", {}).items():
        setattr(request.context, name, value)
    request.generation.model = model
    if options.pop("chat", False):
        request.generation.prompt.chat.messages.add(role=3).content.add(text=prompt)
        for tool in options.pop("tools", ()):
            request.generation.prompt.chat.tools.add(name=tool)
        request.generation.prompt.chat.tool_choice.mode = options.pop("tool_choice", 0)
    else:
        request.generation.prompt.text = prompt
    request.labels.update(options.pop("labels", {}))
    for name, value in options.pop("budget", {}).items():
        setattr(request.budget, name, value)
    if "json_schema" in options:
        request.generation.sampling.response_format.json_schema = options.pop("json_schema")
    if options.pop("json_object", False):
        request.generation.sampling.response_format.json_object = True
    for name, value in options.items():
        setattr(request.generation.sampling, name, value)
    return request


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition, long enough for a machine that is busy with other things."""
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.005)


async def read(call: grpc.aio.UnaryStreamCall, answer: Answer | None = None) -> Answer:
    answer = answer or Answer()
    try:
        async for message in call:
            answer.messages.append(message)
    except grpc.aio.AioRpcError as error:
        answer.error = from_rpc_error(error)
    answer.trailers = {k: v for k, v in await call.trailing_metadata() or ()}
    return answer


@contextlib.asynccontextmanager
async def router(
    path: Path, nodes: dict[str, list[FakeNode]], config: dict[str, object], **settings: object
) -> AsyncIterator[Running]:
    """A running router that has seen the nodes; `nodes` maps services to theirs."""
    file = path / "router.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    control = FakeControl()
    await control.start()
    control.publish({s: {n.name: n.address for n in members} for s, members in nodes.items()})
    options = {"drain_delay_s": 0.0, "drain_deadline_s": 0.1, "dial": "address", "reload_s": 0.02} | settings
    service = await build(RouterConfig(config=file, control=control.address, **options))
    task = asyncio.create_task(service.run())
    while not service.readiness.ready and not task.done():
        await asyncio.sleep(0.001)
    channel = open_channel(f"127.0.0.1:{service.server.port}")
    running = Running(service, router_pb2_grpc.RouterStub(channel), control, file)
    try:
        names = {d["name"] for d in config["deployments"]}
        used = {d["service"] for d in config["deployments"]}
        if names:
            await running.until(lambda state: all(r.revision for r in state.values()) or not used & nodes.keys())
        yield running
    finally:
        await channel.close()
        service.stop()
        await task
        await control.stop()
