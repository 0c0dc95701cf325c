"""The llama.cpp engine with SmolLM2, in a process of its own."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import grpc
import pytest

from headrace.common.v1 import chat_pb2, generation_pb2
from headrace.inference.v1 import inference_pb2 as pb
from inference.adapters.model_files import SMOLLM2
from mesh.errors import from_rpc_error

from .conftest import Node, ask, chat, refused, until

STOP, LENGTH = generation_pb2.FINISH_REASON_STOP, generation_pb2.FINISH_REASON_LENGTH


def raw(text: str, **sampling: object) -> pb.GenerateRequest:
    request = chat("", **sampling)
    request.generation.prompt.text = text
    return request


async def test_it_answers_a_question(llamacpp: Node) -> None:
    answer = await ask(llamacpp, chat("What is the capital of France? Answer in one short sentence.", max_tokens=24))
    assert "Paris" in answer.text()
    assert answer.finishes() == [STOP]
    assert "<|im_end|>" not in answer.text()
    assert answer.summary.usage.prompt_tokens == 43
    assert answer.summary.usage.completion_tokens == len(answer.tokens())
    assert answer.summary.revision == SMOLLM2.sha256


async def test_the_node_describes_the_model(llamacpp: Node) -> None:
    (card,) = (await llamacpp.stub.Describe(pb.DescribeRequest())).models
    assert (card.name, card.engine, card.context_length) == (SMOLLM2.name, "llamacpp", 1024)
    assert card.capabilities.json_schema


async def test_many_byte_characters_arrive_whole_with_all_their_tokens(llamacpp: Node) -> None:
    prompt = "🙂 🌊 🦊 🐼 🦁 🐯 " * 3
    answer = await ask(llamacpp, raw(prompt, max_tokens=24))
    assert any(ord(character) > 0xFFFF for character in answer.text())
    assert "\ufffd" not in answer.text()
    request = pb.TokenizeRequest(generation=raw(answer.text()).generation)
    assert answer.tokens()[:12] == list((await llamacpp.stub.Tokenize(request)).token_ids)[:12]


async def test_resuming_gives_the_same_greedy_text(llamacpp: Node) -> None:
    whole = await ask(llamacpp, chat("Count from one to ten.", max_tokens=24))
    text, tokens = "", []
    for response in whole.responses[:8]:
        for delta in response.deltas:
            text, tokens = text + delta.text, [*tokens, *delta.token_ids]
    request = chat("Count from one to ten.", max_tokens=24)
    request.generation.resume.add(index=0, token_ids=tokens, text=text)
    rest = await ask(llamacpp, request)
    assert text + rest.text() == whole.text()
    assert tokens + rest.tokens() == whole.tokens()


async def test_an_answer_goes_on_from_its_text(llamacpp: Node) -> None:
    """From what a caller holds of it, whoever wrote that: the model reads it as its own beginning."""
    question = "Count from one to ten."
    asked = await ask(llamacpp, chat(question, max_tokens=1))
    request = chat(question, max_tokens=12)
    request.generation.resume.add(text="One, two, three,")
    rest = await ask(llamacpp, request)
    assert rest.text().startswith(" four")
    begun = pb.TokenizeRequest(generation=raw("One, two, three,").generation)
    count = len((await llamacpp.stub.Tokenize(begun)).token_ids)
    assert rest.summary.usage.prompt_tokens == asked.summary.usage.prompt_tokens + count


async def test_a_stop_string_across_tokens_ends_the_answer(llamacpp: Node) -> None:
    whole = (await ask(llamacpp, chat("Tell me about rivers.", max_tokens=24))).text()
    stop = whole[17:25]
    cut = await ask(llamacpp, chat("Tell me about rivers.", max_tokens=24, stop=[stop]))
    assert cut.text() == whole[: whole.index(stop)]
    assert cut.finishes() == [STOP]


async def test_logprobs_and_confidence(llamacpp: Node) -> None:
    answer = await ask(llamacpp, raw("The capital of France is", max_tokens=6, logprobs=True, top_logprobs=3))
    entries = answer.logprobs()
    assert [entry.token_id for entry in entries] == answer.tokens()
    assert all(entry.top[0].logprob == pytest.approx(entry.logprob, abs=1e-4) for entry in entries)
    assert all(len(entry.top) == 3 for entry in entries)
    assert b"".join(entry.raw for entry in entries).decode() == answer.text()
    confidence = next(d.confidence for r in answer.responses for d in r.deltas if d.HasField("confidence"))
    assert confidence.tokens == 6
    assert confidence.mean_logprob == pytest.approx(sum(e.logprob for e in entries) / 6, abs=1e-4)
    assert confidence.min_logprob <= confidence.mean_logprob
    assert confidence.mean_entropy > 0


async def test_a_seed_repeats_and_choices_differ(llamacpp: Node) -> None:
    request = raw("Once upon a time", max_tokens=12, temperature=1.0, seed=11, n=2)
    first, second = await ask(llamacpp, request), await ask(llamacpp, request)
    assert first.text(0) != first.text(1)
    assert {first.text(0), first.text(1)} == {second.text(0), second.text(1)}
    assert first.summary.usage.completion_tokens == 24


async def test_json_answers_keep_to_the_schema(llamacpp: Node) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "known": {"type": "boolean"}},
        "required": ["city", "known"],
        "additionalProperties": False,
    }
    form = chat_pb2.ResponseFormat(json_schema=json.dumps(schema))
    answer = await ask(llamacpp, chat("Name a city.", max_tokens=40, response_format=form))
    value = json.loads(answer.text())
    assert value["city"] in ("Paris", "Rome")
    assert isinstance(value["known"], bool)


async def test_a_schema_that_would_be_skipped_is_refused(llamacpp: Node) -> None:
    form = chat_pb2.ResponseFormat(json_schema='{"type": "object", "not": {"required": ["a"]}}')
    error = await refused(llamacpp, chat("hi", response_format=form))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(error).reason == "UNSUPPORTED_CONSTRAINT"
    assert "#/not" in (error.details() or "")


async def test_the_context_is_the_limit(llamacpp: Node) -> None:
    error = await refused(llamacpp, raw("word " * 1100))
    assert from_rpc_error(error).reason == "CONTEXT_TOO_LONG"
    answer = await ask(llamacpp, raw("one two three " * 330, ignore_eos=True))
    assert answer.finishes() == [LENGTH]
    usage = answer.summary.usage
    assert usage.prompt_tokens + usage.completion_tokens == 1024


async def test_cancelling_frees_the_slot_at_once(llamacpp: Node) -> None:
    """One of two that run side by side; the other, just as long, is still near its beginning when the slot is free."""
    story = raw("Once upon a time", max_tokens=900, ignore_eos=True)
    call, other = llamacpp.stub.Generate(story), llamacpp.stub.Generate(story)
    read = 0

    async def reading() -> None:
        nonlocal read
        async for response in other:
            read += sum(len(delta.token_ids) for delta in response.deltas)

    going_on = asyncio.create_task(reading())
    await call.read()
    await until(running(llamacpp, 2))
    before = read
    call.cancel()
    await until(running(llamacpp, 1))
    assert read - before < 300
    assert not going_on.done()
    other.cancel()
    await asyncio.gather(going_on, return_exceptions=True)
    await until(llamacpp.idle)


def running(node: Node, slots: int, queued: int = 0) -> Callable[[], Awaitable[bool]]:
    """Whether so many slots are in use, and so many requests wait."""

    async def holds() -> bool:
        load = await node.load()
        return (load.running, load.queued) == (slots, queued)

    return holds


async def test_more_than_the_slots_and_the_queue_is_refused(llamacpp: Node) -> None:
    endless = [llamacpp.stub.Generate(raw(f"Story {i}:", max_tokens=900, ignore_eos=True)) for i in range(8)]
    reading = [asyncio.ensure_future(call.read()) for call in endless]
    await until(running(llamacpp, 4, queued=4))
    for i in range(4):
        error = from_rpc_error(await refused(llamacpp, raw(f"Story {8 + i}:", max_tokens=8)))
        assert error.reason == "QUEUE_FULL"
        assert error.retry_after_s
    for call in endless:
        call.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    await until(llamacpp.idle)
    assert (await ask(llamacpp, raw("Story:", max_tokens=8, ignore_eos=True))).finishes() == [LENGTH]
