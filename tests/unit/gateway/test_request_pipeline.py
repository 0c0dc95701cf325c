"""The way of a request: the stream-ending contract, several prompts at the same time, and the tally."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest

from gateway.core.keys import Caller
from gateway.core.request_pipeline import AdmittedRequest, Chunk, RequestPipeline
from gateway.core.request_usage import RequestUsage
from headrace.common.v1 import generation_pb2 as pb
from headrace.router.v1 import router_pb2
from mesh.clock import SYSTEM, Deadline
from mesh.errors import MeshError, ResourceExhausted, StreamCut, Unavailable

Script = Sequence[router_pb2.GenerateResponse | MeshError]
DISCLOSURE = pb.Disclosure(deployment="d", cost_micro_usd=7, attempts=[pb.Attempt(deployment="d")])


def said(text: str, finish: bool = False) -> router_pb2.GenerateResponse:
    delta = pb.ChoiceDelta(text=text, token_ids=[1], finish_reason=pb.FINISH_REASON_STOP if finish else 0)
    return router_pb2.GenerateResponse(deltas=[delta])


def summary(tokens: int = 2) -> router_pb2.GenerateResponse:
    usage = pb.Usage(prompt_tokens=3, completion_tokens=tokens)
    return router_pb2.GenerateResponse(summary=pb.GenerationSummary(usage=usage), disclosure=DISCLOSURE)


class ScriptedCall:
    """One call that follows its script; after it, it waits for ever where `stalls`."""

    def __init__(self, script: Script, *, stalls: bool) -> None:
        self.disclosure: pb.Disclosure | None = None
        self.closed = asyncio.Event()
        self._script = script
        self._stalls = stalls

    async def messages(self) -> AsyncGenerator[router_pb2.GenerateResponse, None]:
        try:
            for step in self._script:
                await asyncio.sleep(0)
                if isinstance(step, MeshError):
                    self.disclosure = DISCLOSURE
                    raise step
                yield step
            if self._stalls:
                await asyncio.Event().wait()
        finally:
            self.closed.set()


class ScriptedRouter:
    """Gives each call the next script."""

    def __init__(self, *scripts: Script, stalls: bool = False) -> None:
        self.calls = [ScriptedCall(script, stalls=stalls) for script in scripts]
        self.requests: list[router_pb2.GenerateRequest] = []

    def generate(self, request: router_pb2.GenerateRequest, timeout_s: float) -> ScriptedCall:
        self.requests.append(request)
        return self.calls[len(self.requests) - 1]

    async def list_models(self, timeout_s: float) -> Sequence[router_pb2.Model]:
        return []


def admitted(prompts: int = 1, n: int = 1) -> AdmittedRequest:
    generation = pb.Generation(model="m", sampling=pb.Sampling(n=n))
    return AdmittedRequest(Caller("k", "t"), "req", "ann", [generation] * prompts, Deadline(60))


async def answer(router: ScriptedRouter, asked: AdmittedRequest, usage_totals: RequestUsage) -> list[Chunk]:
    return [chunk async for chunk in RequestPipeline(router, SYSTEM).answer(asked, usage_totals)]


async def test_a_whole_answer_is_tallied() -> None:
    router, usage_totals = ScriptedRouter([said("a"), said("b", finish=True), summary()]), RequestUsage()
    chunks = await answer(router, admitted(), usage_totals)
    assert [d.text for chunk in chunks for d in chunk.message.deltas] == ["a", "b"]
    assert (usage_totals.complete, usage_totals.usage.prompt_tokens, usage_totals.completion_tokens) == (True, 3, 2)
    assert usage_totals.disclosure == DISCLOSURE
    assert usage_totals.first_s is not None
    context = router.requests[0].context
    assert (context.request_id, context.tenant, context.user) == ("req", "t", "ann")


@pytest.mark.parametrize(
    ("script", "n"),
    [
        ([], 1),
        ([said("a")], 1),
        ([said("a", finish=True)], 1),
        ([said("a"), summary()], 1),
        ([said("a", finish=True), summary()], 2),
    ],
    ids=["nothing", "no-end", "no-summary", "no-finish", "one-of-two-finishes"],
)
async def test_an_answer_without_its_end_is_cut_and_never_complete(script: Script, n: int) -> None:
    usage_totals = RequestUsage()
    with pytest.raises(StreamCut):
        await answer(ScriptedRouter(script), admitted(n=n), usage_totals)
    assert not usage_totals.complete


async def test_an_error_keeps_what_was_seen_and_disclosed() -> None:
    usage_totals = RequestUsage()
    with pytest.raises(Unavailable):
        await answer(ScriptedRouter([said("a"), said("b"), Unavailable("gone")]), admitted(), usage_totals)
    assert (usage_totals.completion_tokens, usage_totals.disclosure) == (2, DISCLOSURE)


async def test_waiting_in_vain_is_waiting_too() -> None:
    usage_totals = RequestUsage()
    started = SYSTEM.monotonic()
    with pytest.raises(Unavailable):
        await answer(ScriptedRouter([Unavailable("gone")]), admitted(), usage_totals)
    assert 0 < usage_totals.waited_s <= SYSTEM.monotonic() - started
    assert usage_totals.first_s is None


async def test_nothing_after_the_summary_takes_the_answer_back() -> None:
    usage_totals = RequestUsage()
    script = [said("a", finish=True), summary(), Unavailable("too late")]
    assert len(await answer(ScriptedRouter(script), admitted(), usage_totals)) == 2
    assert usage_totals.complete


async def test_prompts_are_asked_together_and_told_apart() -> None:
    script = [said("a", finish=True), summary()]
    router, usage_totals = ScriptedRouter(script, script, script), RequestUsage()
    chunks = await answer(router, admitted(prompts=3), usage_totals)
    assert sorted(chunk.prompt for chunk in chunks if chunk.message.deltas) == [0, 1, 2]
    assert [request.context.request_id for request in router.requests] == ["req-0", "req-1", "req-2"]
    assert (usage_totals.usage.prompt_tokens, usage_totals.usage.completion_tokens) == (9, 6)
    disclosure = usage_totals.disclosure
    assert disclosure is not None
    assert (len(disclosure.attempts), disclosure.cost_micro_usd) == (3, 21)
    assert usage_totals.complete


async def test_one_prompts_failure_ends_the_others() -> None:
    router = ScriptedRouter([said("a")], [ResourceExhausted("busy")], stalls=True)
    with pytest.raises(ResourceExhausted):
        await answer(router, admitted(prompts=2), RequestUsage())
    assert router.calls[0].closed.is_set()


@pytest.mark.parametrize("prompts", [1, 2])
async def test_closing_the_answer_closes_the_calls(prompts: int) -> None:
    router = ScriptedRouter(*[[said("a")]] * prompts, stalls=True)
    async with aclosing(RequestPipeline(router, SYSTEM).answer(admitted(prompts), RequestUsage())) as chunks:
        await anext(chunks)
    assert all(call.closed.is_set() for call in router.calls)


async def test_a_slow_reader_holds_the_routers_back() -> None:
    endless = [said(str(i)) for i in range(1000)]
    router = ScriptedRouter(endless, endless)
    usage_totals = RequestUsage()
    async with aclosing(RequestPipeline(router, SYSTEM).answer(admitted(prompts=2), usage_totals)) as chunks:
        await anext(chunks)
        for _ in range(5000):
            await asyncio.sleep(0)
        # What waits is bounded: the queue, and a piece in each prompt's hands.
        assert usage_totals.tokens <= 16 + 3
