"""The node's contract, over real gRPC with the static engine."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import prometheus_client
import pytest

from headrace.common.v1 import chat_pb2, generation_pb2
from headrace.inference.v1 import inference_pb2 as pb
from inference.adapters.static.engine import StaticEngine
from inference.core import self_check
from inference.core.port import EngineDelta, EngineError, EngineEvent, EngineRequest, NonFiniteLogits
from inference.core.self_check import SUSPICIOUS
from mesh.errors import from_rpc_error
from mesh.lifecycle import EX_SOFTWARE

from .conftest import Answer, Node, ask, chat, refused, static_node, until

STOP, LENGTH = generation_pb2.FINISH_REASON_STOP, generation_pb2.FINISH_REASON_LENGTH


async def test_an_answer_ends_with_a_finish_reason_and_a_summary(static: Node) -> None:
    answer = await ask(static, chat("hello"))
    assert answer.finishes() == [STOP]
    assert len(answer.tokens()) == 32
    assert len(answer.text().split()) == 32
    assert answer.summary.usage.completion_tokens == 32
    assert answer.summary.usage.prompt_tokens == len("hello") + 3
    assert answer.summary.model == "static"
    assert answer.summary.revision
    assert (await ask(static, chat("hello"))).text() == answer.text()
    assert (await ask(static, chat("other"))).text() != answer.text()


async def test_max_tokens_ends_it_with_length(static: Node) -> None:
    answer = await ask(static, chat("hello", max_tokens=5))
    assert answer.finishes() == [LENGTH]
    assert len(answer.tokens()) == 5


async def test_every_choice_is_answered(static: Node) -> None:
    answer = await ask(static, chat("hello", n=3, temperature=1.0, seed=7))
    texts = {answer.text(i) for i in range(3)}
    assert len(texts) == 3
    assert all(answer.finishes(i) == [STOP] for i in range(3))
    again = await ask(static, chat("hello", n=3, temperature=1.0, seed=7))
    assert texts == {again.text(i) for i in range(3)}


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The static engine makes up for no time that it was kept waiting: each token comes by itself."""
    monkeypatch.setattr(StaticEngine, "_due", lambda _engine, _elapsed_s: 1)


@pytest.mark.usefixtures("one_at_a_time")
async def test_a_stop_string_ends_the_answer_before_it() -> None:
    async with static_node(token_interval_s=0.001) as node:
        whole = (await ask(node, chat("hello"))).text()
        stop = whole[40:47]
        cut = await ask(node, chat("hello", stop=[stop, "never"]))
        assert cut.text() == whole[: whole.index(stop)]
        assert cut.finishes() == [STOP]
        assert len(cut.tokens()) < 32
        assert cut.summary.usage.completion_tokens == len(cut.tokens())


@pytest.mark.usefixtures("one_at_a_time")
async def test_resuming_anywhere_gives_the_same_text() -> None:
    async with static_node(token_interval_s=0.001) as node:
        whole = await ask(node, chat("resume me", stop=["nothing of the kind"]))
        text, tokens = "", []
        cuts = []
        for response in whole.responses:
            for delta in response.deltas:
                text += delta.text
                tokens += delta.token_ids
                cuts.append((text, list(tokens)))
        assert len(cuts) > 5
        for seen, given in cuts[:-1:3]:
            request = chat("resume me", stop=["nothing of the kind"])
            request.generation.resume.add(index=0, token_ids=given, text=seen)
            rest = await ask(node, request)
            assert seen + rest.text() == whole.text()
            assert given + rest.tokens() == whole.tokens()


async def test_an_answer_goes_on_from_a_text(static: Node) -> None:
    """The text is the end of the prompt, and is counted as one; nothing of it is given out again."""
    question = chat("go on")
    prompt = await ask(static, question)
    request = chat("go on", max_tokens=5)
    request.generation.resume.add(text="river stone <|im_end|> wat")
    rest = await ask(static, request)
    assert rest.finishes() == [LENGTH]
    assert rest.text()
    assert rest.summary.usage.completion_tokens == len(rest.tokens()) == 5
    assert rest.summary.usage.prompt_tokens > prompt.summary.usage.prompt_tokens
    raw = await ask(static, request)
    assert raw.text() == rest.text()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda g: setattr(g.sampling, "n", 2),
        lambda g: g.resume.add(index=0, text="and more"),
        lambda g: setattr(g.sampling.response_format, "json_schema", "{}"),
    ],
)
async def test_an_answer_that_cannot_go_on_from_a_text_is_refused(
    static: Node, spoil: Callable[[generation_pb2.Generation], object]
) -> None:
    request = chat("go on")
    request.generation.resume.add(text="river stone")
    spoil(request.generation)
    error = await refused(static, request)
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert from_rpc_error(error).field == "generation.resume"


async def test_a_resumed_text_that_is_not_the_tokens_is_refused(static: Node) -> None:
    whole = await ask(static, chat("hello"))
    request = chat("hello")
    request.generation.resume.add(index=0, token_ids=whole.tokens()[:3], text="something else")
    error = await refused(static, request)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(error).field == "generation.resume"


async def test_logprobs_stand_beside_the_tokens(static: Node) -> None:
    answer = await ask(static, chat("hello", logprobs=True, top_logprobs=2))
    assert [entry.token_id for entry in answer.logprobs()] == answer.tokens()
    assert b"".join(entry.raw for entry in answer.logprobs()).decode() == answer.text()
    assert all(len(entry.top) == 2 and entry.logprob <= 0 for entry in answer.logprobs())
    last = answer.responses[-1].deltas[-1]
    assert last.confidence.tokens == 32


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -4}, "max_tokens"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_p": 2.0}, "min_p"),
        ({"top_k": -1}, "top_k"),
        ({"presence_penalty": 3.0}, "presence_penalty"),
        ({"frequency_penalty": -3.0}, "frequency_penalty"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"n": -1}, "n"),
        ({"n": 1000}, "n"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {1: 200.0}}, "logit_bias"),
        ({"logit_bias": {9_999_999: 1.0}}, "logit_bias"),
        ({"response_format": chat_pb2.ResponseFormat(regex="a+")}, "response_format.regex"),
    ],
)
async def test_what_is_wrong_is_named(static: Node, sampling: dict[str, object], field: str) -> None:
    error = await refused(static, chat("hello", **sampling))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(error).field == f"generation.sampling.{field}"


@pytest.mark.parametrize(
    ("spoil", "code", "field"),
    [
        (lambda g: g.prompt.Clear(), "INVALID_ARGUMENT", "prompt"),
        (lambda g: g.prompt.chat.ClearField("messages"), "INVALID_ARGUMENT", "prompt.chat.messages"),
        (lambda g: g.prompt.chat.messages[0].ClearField("role"), "INVALID_ARGUMENT", "prompt.chat.messages[0].role"),
        (lambda g: g.prompt.chat.tools.add(name="f"), "FAILED_PRECONDITION", "prompt.chat.tools"),
        (
            lambda g: g.prompt.chat.messages[0].content.add().image.CopyFrom(chat_pb2.ImagePart(url="https://x/y")),
            "FAILED_PRECONDITION",
            "prompt.chat.messages[0].content[1].image",
        ),
        (lambda g: g.prompt.tokens.token_ids.append(-1), "INVALID_ARGUMENT", "prompt.tokens.token_ids"),
        (lambda g: setattr(g.prompt, "text", "x" * 9000), "INVALID_ARGUMENT", "prompt"),
        (lambda g: setattr(g, "model", "other"), "NOT_FOUND", "model"),
        (lambda g: setattr(g, "adapter", "missing"), "NOT_FOUND", "adapter"),
        (lambda g: g.resume.add(index=3), "INVALID_ARGUMENT", "resume[0].index"),
    ],
)
async def test_what_the_model_cannot_do_is_refused(static: Node, spoil: object, code: str, field: str) -> None:
    request = chat("hello")
    spoil(request.generation)  # type: ignore[operator]  # a function, to pytest an object
    error = await refused(static, request)
    assert error.code().name == code
    assert from_rpc_error(error).field == f"generation.{field}"


async def test_tools_that_may_not_be_called_need_no_model_that_calls(static: Node) -> None:
    request = chat("hello")
    request.generation.prompt.chat.tools.add(name="f")
    request.generation.prompt.chat.tool_choice.mode = chat_pb2.ToolChoice.MODE_NONE
    assert (await ask(static, request)).text() == (await ask(static, chat("hello"))).text()


async def test_the_node_describes_itself(static: Node) -> None:
    (card,) = (await static.stub.Describe(pb.DescribeRequest())).models
    assert card.name == "static"
    assert card.engine == "static"
    assert card.context_length == 8192
    assert card.capabilities.chat
    assert card.capabilities.resume
    assert card.capabilities.continue_text
    assert not card.capabilities.tools


async def test_tokenize_says_what_generate_counts(static: Node) -> None:
    request = chat("hello the river")
    tokens = (await static.stub.Tokenize(pb.TokenizeRequest(generation=request.generation))).token_ids
    assert (await ask(static, request)).summary.usage.prompt_tokens == len(tokens)


async def test_an_engine_without_adapters_says_so(static: Node) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await static.stub.LoadAdapter(pb.LoadAdapterRequest(name="a", path="b"))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


# Answers that are to be ended would go on for the better part of a minute, far longer than `until` waits.
async def test_cancelling_frees_the_slot_at_once() -> None:
    async with static_node(token_interval_s=0.05, answer_tokens=1000) as node:
        call = node.stub.Generate(chat("hello"))
        await call.read()
        assert (await node.load()).running == 1
        call.cancel()
        await until(node.idle)


async def test_a_waiting_request_that_is_cancelled_leaves_the_queue() -> None:
    async with static_node(token_interval_s=0.05, answer_tokens=1000, max_running=1, max_queued=1) as node:
        running = node.stub.Generate(chat("one"))
        await running.read()
        waiting = node.stub.Generate(chat("two"))
        # The queue is what it says until its turn comes.
        waiting_read = asyncio.ensure_future(_until_delta(waiting))

        async def queued() -> bool:
            return (await node.load()).queued == 1

        await until(queued)
        error = await refused(node, chat("three"))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        meant = from_rpc_error(error)
        assert meant.reason == "QUEUE_FULL"
        assert meant.retry_after_s is not None
        assert meant.retry_after_s > 0
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting_read

        async def left() -> bool:
            return (await node.load()).queued == 0

        await until(left)
        assert (await node.load()).running == 1
        running.cancel()
        await until(node.idle)


async def _until_delta(call: Any) -> None:
    while not (await call.read()).deltas:
        pass


async def test_a_waiting_request_says_so_until_its_first_token_and_no_other_does() -> None:
    async with static_node(token_interval_s=0.01, answer_tokens=200, max_running=1, first_token_s=0.5) as node:
        running = node.stub.Generate(chat("one"))
        assert (await running.read()).deltas, "it waits for nothing"
        waiting = node.stub.Generate(chat("two"))
        said = []
        while not (response := await waiting.read()).deltas:
            said.append(response)
        assert said
        assert {each.progress.stage for each in said} == {generation_pb2.GenerationProgress.STAGE_QUEUED}
        while not response.HasField("summary"):
            assert not response.HasField("progress")
            response = await waiting.read()
        running.cancel()


async def test_what_could_not_begin_before_its_deadline_is_refused_at_once() -> None:
    async with static_node(token_interval_s=0.01, answer_tokens=100, max_running=1) as node:
        await ask(node, chat("how long one takes"))
        running = node.stub.Generate(chat("one"))
        await running.read()
        waiting = [node.stub.Generate(chat("two")) for _ in range(5)]

        async def queued() -> bool:
            return (await node.load()).queued == 5

        await until(queued)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await ask(node, chat("three"), within_s=3.0)
        meant = from_rpc_error(late.value)
        assert late.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "after its deadline" in meant.message
        # Six answers of a second each are before it, and it has three.
        assert meant.retry_after_s is not None
        assert meant.retry_after_s > 0.5
        for call in (running, *waiting):
            call.cancel()
        await until(node.idle)


async def test_a_choice_that_a_stop_string_ended_is_drawn_and_counted_no_further() -> None:
    async with static_node(answer_tokens=24, token_interval_s=0.002) as node:
        whole = await ask(node, chat("hello", n=3, temperature=1.0, seed=4))
        words, others = whole.text(0).split(), whole.text(1).split() + whole.text(2).split()
        stop = next(word for word in words[5:15] if word not in others)
        answer = await ask(node, chat("hello", n=3, temperature=1.0, seed=4, stop=[stop]))
        assert answer.finishes(0) == [STOP]
        given = [len(answer.tokens(index)) for index in range(3)]
        assert given == [words.index(stop) + 1, 24, 24]
        assert answer.summary.usage.completion_tokens == sum(given)


async def test_the_nodes_metrics_count_what_it_did(static: Node) -> None:
    def value(name: str, **labels: str) -> float:
        return prometheus_client.REGISTRY.get_sample_value(name, labels) or 0.0

    names = ("headrace_inference_completion_tokens_total", "headrace_inference_first_token_seconds_count")
    before = [value(name) for name in names]
    finished = value("headrace_inference_generations_total", outcome="finished")
    refusals = value("headrace_inference_generations_total", outcome="refused")
    read = value("headrace_inference_prompt_tokens_total", source="read")
    answer = await ask(static, chat("hello"))
    await refused(static, chat("hello", max_tokens=100_000))
    usage = answer.summary.usage
    assert [value(name) for name in names] == [before[0] + usage.completion_tokens, before[1] + 1]
    assert value("headrace_inference_prompt_tokens_total", source="read") == read + usage.prompt_tokens
    assert value("headrace_inference_generations_total", outcome="finished") == finished + 1
    assert value("headrace_inference_generations_total", outcome="refused") == refusals + 1
    assert value("headrace_inference_queued") == 0


async def test_a_deadline_ends_the_request_and_frees_its_slot() -> None:
    async with static_node(token_interval_s=0.05, answer_tokens=1000) as node:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(node, chat("hello"), within_s=0.2)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await until(node.idle)


async def test_a_drain_finishes_the_streams_and_ends_the_watches() -> None:
    async with static_node(token_interval_s=0.01, answer_tokens=40) as node:
        assert node.service is not None
        watch = aiter(node.stub.WatchLoad(pb.WatchLoadRequest()))
        await anext(watch)
        call = aiter(node.stub.Generate(chat("hello")))
        first = await anext(call)
        node.service.stop()
        answer = Answer([first, *[response async for response in call]])
        assert answer.finishes() == [STOP]
        assert len(answer.tokens()) == 40
        assert answer.summary.usage.completion_tokens == 40
        reports = [report async for report in watch]
        assert reports[-1].draining


async def test_an_engine_that_breaks_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(_engine: StaticEngine, _request: EngineRequest) -> AsyncIterator[EngineEvent]:
        yield EngineDelta(0, (300,))
        raise EngineError("out of memory")

    monkeypatch.setattr(StaticEngine, "generate", breaks)
    async with static_node() as node:
        error = await refused(node, chat("hello"))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert from_rpc_error(error).reason == "ENGINE_FAILED"
        assert node.running is not None
        assert await asyncio.wait_for(node.running, 20) == EX_SOFTWARE


async def test_tokens_are_gathered_when_many_streams_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a message waits for up to 20 ms of tokens; a stream that is nearly alone has each at once."""
    async with static_node(token_interval_s=0.001, answer_tokens=200) as node:
        together = await asyncio.gather(*[ask(node, chat(f"number {i}")) for i in range(16)])
        assert all(len(answer.tokens()) == 200 for answer in together)
        messages = sum(len(answer.responses) for answer in together) / len(together)
        # None of them is late, so that the engine never makes up for lost time with several at once.
        monkeypatch.setattr(StaticEngine, "_due", lambda _engine, _elapsed_s: 1)
        alone = await ask(node, chat("alone"))
        assert len(alone.responses) >= 190
        assert messages < len(alone.responses) / 2


async def test_an_answer_that_fails_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a node whose answers all fail is not ready, for as long as they do; its process goes on."""
    answers, spoilt = StaticEngine.generate, {"t-1"}

    async def fails(engine: StaticEngine, request: EngineRequest) -> AsyncIterator[EngineEvent]:
        if request.tenant in spoilt or "everybody" in spoilt:
            raise NonFiniteLogits("the model's logits are not finite")
        async for event in answers(engine, request):
            yield event

    monkeypatch.setattr(StaticEngine, "generate", fails)
    monkeypatch.setattr(self_check, "AGAIN_AFTER_S", 0.01)
    async with static_node() as node:
        assert node.service is not None
        readiness = node.service.readiness
        for _ in range(2 * SUSPICIOUS):
            error = await refused(node, chat("hello"))
            assert error.code() == grpc.StatusCode.INTERNAL
            assert from_rpc_error(error).reason == "NON_FINITE_LOGITS"
        assert readiness.ready, "one tenant's requests fail by their own doing"
        spoilt.add("everybody")
        for _ in range(SUSPICIOUS):
            await refused(node, chat("hello"))

        async def not_ready() -> bool:
            return readiness.pending == ("answers_fail",)

        async def ready() -> bool:
            return readiness.ready

        await until(not_ready)
        spoilt.clear()
        await until(ready)
        assert (await ask(node, chat("hello"))).finishes() == [STOP]
