"""A scripted inference node over real gRPC. Its model is arithmetic: what it should have said can be worked out."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

from headrace.common.v1 import generation_pb2 as common
from headrace.inference.v1 import inference_pb2 as pb
from headrace.inference.v1 import inference_pb2_grpc
from mesh.errors import MeshError, Unavailable
from mesh.health import Readiness
from mesh.server import Server


@dataclass(frozen=True)
class Act:
    """How one Generate call goes. The default is a healthy answer."""

    tokens: int = 8
    # Tokens to give before `then` happens; None: nothing happens.
    after: int | None = None
    # "cut": the error; "end": OK without a summary; "stall": nothing more; "drip": one token every `drip_s`.
    then: Literal["cut", "end", "stall", "drip", "nofinish"] = "cut"
    error: MeshError = field(default_factory=lambda: Unavailable("scripted", reason="SCRIPTED"))
    # Send the response headers before anything else.
    headers: bool = False
    # The token after `hold_at` of them waits for this.
    hold: asyncio.Event | None = None
    hold_at: int = 0
    drip_s: float = 0.5
    per_message: int = 1
    logprob: float = -0.1
    # The text of every token, in place of what follows from the prompt.
    says: str | None = None
    # Say so often that the prompt is being read, before anything of the answer.
    progress: int = 0
    # Its text is a refusal's.
    refuses: bool = False
    # What is said, token by token, by a node that goes on from a text.
    goes_on: tuple[str, ...] = ()
    # The end of the answer is a tool call, in pieces, from this token on.
    tool_from: int | None = None


def token_ids(prompt: str, count: int) -> list[int]:
    """The tokens of the answer to a prompt."""
    seed = zlib.crc32(prompt.encode())
    return [(seed + i * 7919) % 50_000 for i in range(count)]


def text_of(ids: list[int]) -> str:
    """What tokens read like."""
    return "".join(f"{i} " for i in ids)


@dataclass
class Count:
    """Tokens given in one call."""

    tokens: int = 0


def _of(prompt: str, index: int) -> str:
    """Each choice has an answer of its own."""
    return f"{prompt}#{index}" if index else prompt


def _check_resume(prompt: str, generation: common.Generation) -> dict[int, int]:
    """How many tokens each choice has already; what is resumed must be what was given."""
    for entry in generation.resume:
        ids = token_ids(_of(prompt, entry.index), len(entry.token_ids))
        assert list(entry.token_ids) == ids, "resumed from tokens that were never given"
        assert entry.text == text_of(ids)
    return {entry.index: len(entry.token_ids) for entry in generation.resume}


class FakeNode(inference_pb2_grpc.InferenceServicer):
    """One node. `acts` are used up call by call, then `default` holds."""

    def __init__(
        self,
        name: str,
        revision: str = "r1",
        capacity: int = 8,
        *,
        context: int = 4096,
        account: str = "",
        continues: bool = False,
    ) -> None:
        self.continues = continues
        self.name = name
        self.context = context
        self.account = account
        self.revision = revision
        self.capacity = capacity
        self.default = Act()
        self.acts: deque[Act] = deque()
        self.requests: list[pb.GenerateRequest] = []
        # Of each of them, whether it came over a stream that carries calls: gRPC names itself in its own.
        self.carried: list[bool] = []
        self.active = 0
        self.queued = 0
        self.cancelled = 0
        self.started = asyncio.Event()
        self.address = ""
        self._server: Server | None = None
        self._load_changed = asyncio.Event()

    async def start(self, address: str = "127.0.0.1:0") -> str:
        """Serve; returns the address."""
        self._server = Server(address, Readiness(), ())
        inference_pb2_grpc.add_InferenceServicer_to_server(self, self._server.grpc)
        port = await self._server.start()
        self.address = f"127.0.0.1:{port}"
        return self.address

    async def kill(self) -> None:
        """End at once, as a SIGKILL does: connections are cut."""
        if self._server is not None:
            await self._server.grpc.stop(0)
            self._server = None

    def load_changed(self) -> None:
        """Report the load now."""
        self._load_changed.set()

    async def Describe(self, request, context):
        able = pb.Capabilities(chat=True, completion=True, resume=True, logprobs=True, tools=True)
        able.continue_text = self.continues
        card = pb.ModelCard(
            name="m",
            revision=self.revision,
            context_length=self.context,
            capabilities=able,
            engine="fake",
            account=self.account,
        )
        return pb.DescribeResponse(models=[card])

    async def WatchLoad(self, request, context):
        while True:
            # First, so that what changes while this report is being sent is the next one.
            self._load_changed.clear()
            busy = pb.WatchLoadResponse(queued=self.queued, running=self.active, capacity=self.capacity)
            busy.tokens_per_second = 10.0
            yield busy
            await self._load_changed.wait()

    async def Generate(self, request, context) -> AsyncIterator[pb.GenerateResponse]:
        self.requests.append(request)
        self.carried.append("user-agent" not in dict(context.invocation_metadata()))
        act = self.acts.popleft() if self.acts else self.default
        self.active += 1
        cancelled = True
        self.started.set()
        self._load_changed.set()
        try:
            if act.headers:
                await context.send_initial_metadata(())
            for i in range(act.progress):
                stage = common.GenerationProgress.STAGE_PREFILL
                yield pb.GenerateResponse(progress={"stage": stage, "prompt_read": i / act.progress})
            async for message in self._answer(request, act):
                yield message
            cancelled = False
        except MeshError:
            cancelled = False
            raise
        finally:
            self.active -= 1
            self.cancelled += cancelled
            self._load_changed.set()

    async def _go_on(self, generation: common.Generation, act: Act) -> AsyncIterator[pb.GenerateResponse]:
        """Go on from a text, as a model with other tokens does; it counts the text as prompt."""
        limit = generation.sampling.max_tokens or len(act.goes_on)
        for i, word in enumerate(act.goes_on[:limit]):
            if act.after is not None and i >= act.after:
                await self._end(act)
                return
            yield pb.GenerateResponse(deltas=[common.ChoiceDelta(token_ids=[i], text=word)])
        yield pb.GenerateResponse(deltas=[common.ChoiceDelta(finish_reason=common.FINISH_REASON_STOP)])
        words = len(generation.resume[0].text.split())
        usage = common.Usage(prompt_tokens=10 + words, completion_tokens=min(limit, len(act.goes_on)))
        yield pb.GenerateResponse(summary=common.GenerationSummary(usage=usage, model="m", revision=self.revision))

    async def _answer(self, request: pb.GenerateRequest, act: Act) -> AsyncIterator[pb.GenerateResponse]:
        generation = request.generation
        if act.goes_on and generation.resume and not generation.resume[0].token_ids:
            async for message in self._go_on(generation, act):
                yield message
            return
        prompt = generation.prompt.text or generation.prompt.chat.messages[-1].content[0].text
        resumed = _check_resume(prompt, generation)
        given = Count()
        for index in range(max(1, generation.sampling.n)):
            ids = token_ids(_of(prompt, index), min(generation.sampling.max_tokens or act.tokens, act.tokens))
            async for delta in self._choice(index, ids, resumed.get(index, 0), act, given):
                if generation.sampling.logprobs:
                    delta.logprobs.extend(common.TokenLogprob(token_id=i, logprob=act.logprob) for i in delta.token_ids)
                yield pb.GenerateResponse(deltas=[delta])
                await asyncio.sleep(0)
            if act.after is not None and given.tokens >= act.after and act.then in ("cut", "end", "stall"):
                await self._end(act)
                return
            if act.then != "nofinish":
                confidence = common.Confidence(mean_logprob=act.logprob, min_logprob=act.logprob, tokens=len(ids))
                end = common.ChoiceDelta(index=index, finish_reason=common.FINISH_REASON_STOP, confidence=confidence)
                yield pb.GenerateResponse(deltas=[end])
        usage = common.Usage(prompt_tokens=10, completion_tokens=given.tokens)
        summary = common.GenerationSummary(usage=usage, model="m", revision=self.revision)
        yield pb.GenerateResponse(summary=summary)

    async def _choice(
        self, index: int, ids: list[int], at: int, act: Act, given: Count
    ) -> AsyncIterator[common.ChoiceDelta]:
        while at < len(ids):
            if act.hold is not None and given.tokens >= act.hold_at:
                await act.hold.wait()
            if act.after is not None and given.tokens >= act.after:
                if act.then in ("cut", "end", "stall"):
                    return
                await asyncio.sleep(act.drip_s if act.then == "drip" else 0)
            part = ids[at : at + act.per_message]
            delta = common.ChoiceDelta(index=index, token_ids=part)
            if act.tool_from is not None and at >= act.tool_from:
                head = {"id": "c1", "name": "f"} if at == act.tool_from else {}
                delta.tool_calls.add(index=0, arguments_json=text_of(part), **head)
            elif act.refuses:
                delta.refusal = text_of(part)
            else:
                delta.text = text_of(part) if act.says is None else act.says
            at += len(part)
            given.tokens += len(part)
            yield delta

    async def _end(self, act: Act) -> None:
        if act.then == "cut":
            raise act.error
        if act.then == "stall":
            await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def nodes(*names: str, **options: object) -> AsyncIterator[list[FakeNode]]:
    """Running nodes; all are gone at the end."""
    made = [FakeNode(name, **options) for name in names]  # type: ignore[arg-type]
    try:
        for node in made:
            await node.start()
        yield made
    finally:
        for node in made:
            await node.kill()
