"""The official OpenAI client, unchanged, against a real model through the whole mesh."""

from __future__ import annotations

import json

import openai
import pytest

from tests.e2e.mesh_under_test import Mesh

MODEL = "smollm2-135m-instruct"
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "get_time", "description": "The time now."}},
]
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]


async def test_a_chat_is_answered_by_the_model(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=32)
    (choice,) = answer.choices
    assert "Paris" in (choice.message.content or "")
    assert choice.finish_reason == "stop"
    assert answer.model == MODEL
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    # The question, the template's own system message, and the marks around both.
    assert 20 < answer.usage.prompt_tokens < 60


async def test_a_stream_gives_the_same_text_and_ends_with_its_usage(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=32)
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        temperature=0,
        max_tokens=32,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_text_is_completed(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(
        model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=4
    )
    assert "Paris" in answer.choices[0].text
    assert answer.choices[0].finish_reason == "length"


async def test_choices_stop_strings_and_seeds(client: openai.AsyncOpenAI) -> None:
    async def ask(seed: int) -> list[str | None]:
        answer = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Tell me a story."}],
            n=2,
            seed=seed,
            temperature=1,
            max_completion_tokens=12,
        )
        assert [choice.index for choice in answer.choices] == [0, 1]
        return [choice.message.content for choice in answer.choices]

    first, again, other = await ask(7), await ask(7), await ask(8)
    assert first == again
    assert first != other
    stopped = await client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=32, stop=["Paris"]
    )
    assert stopped.choices[0].finish_reason == "stop"
    assert "Paris" not in (stopped.choices[0].message.content or "")


async def test_log_probabilities(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=4, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 4
    for token in logprobs.content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        # Greedy: what was drawn is the best of what is listed.
        assert token.top_logprobs[0].token == token.token


async def test_tools_are_called_and_their_answers_taken(client: openai.AsyncOpenAI) -> None:
    asked = {"model": MODEL, "messages": WEATHER, "tools": TOOLS, "temperature": 0, "max_tokens": 96}
    one = {"tool_choice": "required", "parallel_tool_calls": False}
    whole = await client.chat.completions.create(**asked, **one)
    (choice,) = whole.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert arguments["city"] == "Paris"
    assert set(arguments) <= {"city", "unit"}
    async with client.chat.completions.stream(**asked, **one) as stream:
        async for _ in stream:
            pass
        streamed = await stream.get_final_completion()
    (called,) = streamed.choices[0].message.tool_calls or ()
    assert streamed.choices[0].finish_reason == "tool_calls"
    assert called.id not in ("", call.id)
    assert (called.function.name, called.function.arguments) == (call.function.name, call.function.arguments)
    named = await client.chat.completions.create(
        **asked, tool_choice={"type": "function", "function": {"name": "get_time"}}, parallel_tool_calls=False
    )
    (other,) = named.choices[0].message.tool_calls or ()
    assert other.function.name == "get_time"
    result = {"role": "tool", "tool_call_id": called.id, "content": '{"celsius": 21, "sky": "clear"}'}
    turns = [*WEATHER, streamed.choices[0].message, result]
    answer = await client.chat.completions.create(**asked | {"messages": turns})
    assert "clear" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"


async def test_a_schema_that_cannot_be_held_to_is_refused_by_its_name(client: openai.AsyncOpenAI) -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    tools = [TOOLS[0], {"type": "function", "function": {"name": "f", "parameters": parameters}}]
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model=MODEL, messages=WEATHER, tools=tools)
    assert refused.value.param == "tools[1].function.parameters"
    assert "'uniqueItems' at #/properties/a" in refused.value.message


async def test_the_models_are_listed(client: openai.AsyncOpenAI) -> None:
    assert {model.id for model in (await client.models.list()).data} == {MODEL, "paced", "alone", "endless"}


async def test_errors_are_the_clients_own_types(mesh: Mesh, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="no-such-model", messages=QUESTION)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=3)
    assert bad.value.param == "temperature"
    stranger = client.with_options(api_key="hr-not-a-key")
    with pytest.raises(openai.AuthenticationError):
        await stranger.chat.completions.create(model=MODEL, messages=QUESTION)


async def test_an_answer_says_how_it_was_made_and_can_be_explained(mesh: Mesh, client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="alone", messages=QUESTION, max_tokens=3, extra_headers={"x-request-id": "e2e-explained"}
    )
    assert raw.headers["x-request-id"] == "e2e-explained"
    assert raw.headers["x-headrace-deployment"] == "alone"
    assert raw.headers["x-headrace-attempts"] == "1"
    assert "alone-0" in mesh.headrace("explain", "e2e-explained").stdout
    unknown = mesh.headrace("explain", "no-such-request", check=False)
    assert unknown.returncode == 69
    assert "x-request-id" in unknown.stderr
