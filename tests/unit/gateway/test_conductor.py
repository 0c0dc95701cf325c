"""The way of a request: the stream-ending contract, several prompts at the same time, and the tally."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest

from gateway.core.conductor import Ask, Conductor, Part
from gateway.core.keys import Caller
from gateway.core.tally import Tally
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


def ask(prompts: int = 1, n: int = 1) -> Ask:
    generation = pb.Generation(model="m", sampling=pb.Sampling(n=n))
    return Ask(Caller("k", "t"), "req", "ann", [generation] * prompts, Deadline(60))


async def answer(router: ScriptedRouter, asked: Ask, tally: Tally) -> list[Part]:
    return [part async for part in Conductor(router, SYSTEM).answer(asked, tally)]


async def test_a_whole_answer_is_tallied() -> None:
    router, tally = ScriptedRouter([said("a"), said("b", finish=True), summary()]), Tally()
    parts = await answer(router, ask(), tally)
    assert [d.text for part in parts for d in part.message.deltas] == ["a", "b"]
    assert (tally.complete, tally.usage.prompt_tokens, tally.completion_tokens) == (True, 3, 2)
    assert tally.disclosure == DISCLOSURE
    assert tally.first_s is not None
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
    tally = Tally()
    with pytest.raises(StreamCut):
        await answer(ScriptedRouter(script), ask(n=n), tally)
    assert not tally.complete


async def test_an_error_keeps_what_was_seen_and_disclosed() -> None:
    tally = Tally()
    with pytest.raises(Unavailable):
        await answer(ScriptedRouter([said("a"), said("b"), Unavailable("gone")]), ask(), tally)
    assert (tally.completion_tokens, tally.disclosure) == (2, DISCLOSURE)


async def test_waiting_in_vain_is_waiting_too() -> None:
    tally = Tally()
    started = SYSTEM.monotonic()
    with pytest.raises(Unavailable):
        await answer(ScriptedRouter([Unavailable("gone")]), ask(), tally)
    assert 0 < tally.waited_s <= SYSTEM.monotonic() - started
    assert tally.first_s is None


async def test_nothing_after_the_summary_takes_the_answer_back() -> None:
    tally = Tally()
    script = [said("a", finish=True), summary(), Unavailable("too late")]
    assert len(await answer(ScriptedRouter(script), ask(), tally)) == 2
    assert tally.complete


async def test_prompts_are_asked_together_and_told_apart() -> None:
    script = [said("a", finish=True), summary()]
    router, tally = ScriptedRouter(script, script, script), Tally()
    parts = await answer(router, ask(prompts=3), tally)
    assert sorted(part.prompt for part in parts if part.message.deltas) == [0, 1, 2]
    assert [request.context.request_id for request in router.requests] == ["req-0", "req-1", "req-2"]
    assert (tally.usage.prompt_tokens, tally.usage.completion_tokens) == (9, 6)
    disclosure = tally.disclosure
    assert disclosure is not None
    assert (len(disclosure.attempts), disclosure.cost_micro_usd) == (3, 21)
    assert tally.complete


async def test_one_prompts_failure_ends_the_others() -> None:
    router = ScriptedRouter([said("a")], [ResourceExhausted("busy")], stalls=True)
    with pytest.raises(ResourceExhausted):
        await answer(router, ask(prompts=2), Tally())
    assert router.calls[0].closed.is_set()


@pytest.mark.parametrize("prompts", [1, 2])
async def test_closing_the_answer_closes_the_calls(prompts: int) -> None:
    router = ScriptedRouter(*[[said("a")]] * prompts, stalls=True)
    async with aclosing(Conductor(router, SYSTEM).answer(ask(prompts), Tally())) as parts:
        await anext(parts)
    assert all(call.closed.is_set() for call in router.calls)


async def test_a_slow_reader_holds_the_routers_back() -> None:
    endless = [said(str(i)) for i in range(1000)]
    router = ScriptedRouter(endless, endless)
    tally = Tally()
    async with aclosing(Conductor(router, SYSTEM).answer(ask(prompts=2), tally)) as parts:
        await anext(parts)
        for _ in range(5000):
            await asyncio.sleep(0)
        # What waits is bounded: the queue, and a piece in each prompt's hands.
        assert tally.tokens <= 16 + 3
