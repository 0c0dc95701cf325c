"""A scripted router over real gRPC: it gives the answers it is told to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from headrace.common.v1 import generation_pb2 as common
from headrace.router.v1 import router_pb2 as pb
from headrace.router.v1 import router_pb2_grpc
from mesh import telemetry
from mesh.errors import MeshError, NotFound, Unavailable
from mesh.health import Readiness
from mesh.server import Server

MODEL = "fake-model"


@dataclass(frozen=True)
class Act:
    """How one Generate call goes. The default is a healthy answer of a few pieces."""

    pieces: Sequence[str] = ("Hel", "lo", " there")
    # Pieces to give before `then` happens; None: nothing happens.
    after: int | None = None
    # "error": `error`; "end": OK without a summary; "stall": nothing more until cancelled; "nofinish": a summary
    # without finish reasons; "flood": pieces without end.
    then: Literal["error", "end", "stall", "nofinish", "flood"] = "error"
    error: MeshError = field(default_factory=lambda: Unavailable("scripted", reason="SCRIPTED"))
    finish: common.FinishReason.ValueType = common.FINISH_REASON_STOP
    # Deltas sent as they are in the place of pieces and finish reasons.
    deltas: Sequence[common.ChoiceDelta] | None = None
    # Give a piece only when the test puts one into `go`.
    stepped: bool = False
    attempts: int = 1
    # Messages before the first piece that say that the node waits.
    progress: int = 0
    # What the nodes call the model that answers.
    model: str = "m"


class FakeRouter(router_pb2_grpc.RouterServicer):
    """One router. `acts` are used up call by call, then `default` holds."""

    def __init__(self) -> None:
        self.default = Act()
        self.acts: deque[Act] = deque()
        self.requests: list[pb.GenerateRequest] = []
        self.deadlines: list[float] = []
        self.metadata: list[dict[str, str]] = []
        self.active = 0
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.go: asyncio.Queue[None] = asyncio.Queue()
        self.sent = 0
        self.models = [
            pb.Model(name=MODEL, owned_by="tests", context_length=4096, first_models=["m"]),
            pb.Model(name="org/other"),
        ]
        self.address = ""
        self._server: Server | None = None

    async def start(self, address: str = "127.0.0.1:0") -> str:
        """Serve; returns the address."""
        self._server = Server(address, Readiness(), ("headrace.router.v1.Router",))
        router_pb2_grpc.add_RouterServicer_to_server(self, self._server.grpc)
        self.address = f"127.0.0.1:{await self._server.start()}"
        return self.address

    async def stop(self) -> None:
        """End at once."""
        if self._server is not None:
            await self._server.grpc.stop(0)
            self._server = None

    async def ListModels(self, request, context):
        return pb.ListModelsResponse(models=self.models)

    async def Generate(self, request, context) -> AsyncIterator[pb.GenerateResponse]:
        act = self.acts.popleft() if self.acts else self.default
        self.requests.append(request)
        self.deadlines.append(context.time_remaining())
        metadata = context.invocation_metadata()
        self.metadata.append({key: telemetry.metadata_value(metadata, key) or "" for key, _ in metadata})
        self.active += 1
        cancelled = True
        self.started.set()
        disclosure = _disclosure(act)
        context.set_trailing_metadata((("headrace-disclosure-bin", disclosure.SerializeToString()),))
        try:
            if request.generation.model not in {model.name for model in self.models}:
                raise NotFound("no model has this name", field="model", reason="MODEL_NOT_FOUND")
            async for message in self._answer(request.generation, act, disclosure):
                self.sent += 1
                yield message
            cancelled = False
        except MeshError:
            cancelled = False
            raise
        finally:
            self.active -= 1
            if cancelled:
                self.cancelled.set()

    async def _answer(
        self, generation: common.Generation, act: Act, disclosure: common.Disclosure
    ) -> AsyncIterator[pb.GenerateResponse]:
        first = {"disclosure": disclosure}
        for _ in range(act.progress):
            yield pb.GenerateResponse(progress=common.GenerationProgress(stage=1))
        for given, deltas in enumerate(self._deltas(generation, act)):
            if given == act.after and act.then in ("error", "end", "stall"):
                await self._end(act)
                return
            if act.stepped:
                await self.go.get()
            yield pb.GenerateResponse(deltas=deltas, **first)
            first = {}
        if act.after is not None and act.then in ("error", "end", "stall"):
            await self._end(act)
            return
        usage = common.Usage(prompt_tokens=5, completion_tokens=len(act.pieces), cached_tokens=2)
        summary = common.GenerationSummary(usage=usage, model=act.model, revision="r1")
        yield pb.GenerateResponse(summary=summary, disclosure=disclosure)

    def _deltas(self, generation: common.Generation, act: Act):
        choices = range(max(1, generation.sampling.n))
        if act.deltas is not None:
            yield from ([delta] for delta in act.deltas)
            return
        while True:
            for i, piece in enumerate(act.pieces):
                yield [_delta(index, i, piece, generation.sampling) for index in choices]
            if act.then != "flood":
                break
        if act.then != "nofinish":
            yield [common.ChoiceDelta(index=index, finish_reason=act.finish) for index in choices]

    async def _end(self, act: Act) -> None:
        if act.then == "error":
            raise act.error
        if act.then == "stall":
            await asyncio.Event().wait()


def _delta(index: int, token: int, piece: str, sampling: common.Sampling) -> common.ChoiceDelta:
    delta = common.ChoiceDelta(index=index, text=piece, token_ids=[token])
    if sampling.logprobs:
        entry = delta.logprobs.add(token_id=token, text=piece, raw=piece.encode(), logprob=-0.25)
        for rank in range(sampling.top_logprobs):
            entry.top.add(token_id=rank, text=f"alt{rank}", raw=b"a", logprob=-1.0 - rank)
    return delta


def _disclosure(act: Act) -> common.Disclosure:
    made = common.Disclosure(deployment="dep", model=act.model, revision="r1", cost_micro_usd=1500)
    for i in range(act.attempts):
        outcome = common.OUTCOME_OK if i == act.attempts - 1 else common.OUTCOME_FAULT
        made.attempts.add(
            deployment="dep", replica=f"node-{i}", model="m", revision="r1", outcome=outcome, cause="first"
        )
    return made
