"""The official OpenAI client against the gateway, unchanged."""

from pathlib import Path

import openai
import pytest

from headrace.common.v1 import generation_pb2 as pb
from mesh.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable
from tests.fakes.router import Act
from tests.integration.gateway.harness import Running, gateway

MESSAGES = [{"role": "user", "content": "hello"}]


async def test_chat(running: Running) -> None:
    answer = await running.openai.chat.completions.create(model="fake-model", messages=MESSAGES, seed=7, user="ann")
    assert answer.choices[0].message.content == "Hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.total_tokens, answer.usage.prompt_tokens_details.cached_tokens) == (8, 2)
    assert (answer.object, answer.model, answer.system_fingerprint) == ("chat.completion", "fake-model", "fp_r1")
    request = running.router.requests[0]
    assert (request.context.tenant, request.context.user) == ("tenant-1", "ann")
    assert request.generation.sampling.seed == 7


async def test_several_answers_with_logprobs(running: Running) -> None:
    answer = await running.openai.chat.completions.create(
        model="fake-model", messages=MESSAGES, n=2, logprobs=True, top_logprobs=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    content = answer.choices[1].logprobs.content
    assert [entry.token for entry in content] == ["Hel", "lo", " there"]
    assert content[0].top_logprobs[0].token == "alt0"


async def test_a_chat_stream(running: Running) -> None:
    stream = await running.openai.chat.completions.create(
        model="fake-model", messages=MESSAGES, stream=True, stream_options={"include_usage": True}, n=2
    )
    chunks = [chunk async for chunk in stream]
    for index in range(2):
        own = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == index]
        assert "".join(choice.delta.content or "" for choice in own) == "Hello there"
        assert [choice.finish_reason for choice in own if choice.finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 3


async def test_the_clients_own_stream_helper_puts_tool_calls_together(running: Running) -> None:
    pieces = [
        pb.ToolCallDelta(index=0, id="c1", name="weather", arguments_json='{"city":'),
        pb.ToolCallDelta(index=0, arguments_json='"Oslo"}'),
    ]
    deltas = [pb.ChoiceDelta(tool_calls=[piece]) for piece in pieces]
    running.router.default = Act(deltas=[*deltas, pb.ChoiceDelta(finish_reason=pb.FINISH_REASON_TOOL_CALLS)])
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    async with running.openai.chat.completions.stream(model="fake-model", messages=MESSAGES, tools=tools) as stream:
        async for _ in stream:
            pass
        answer = await stream.get_final_completion()
    call = answer.choices[0].message.tool_calls[0]
    assert (call.id, call.function.name, call.function.arguments) == ("c1", "weather", '{"city":"Oslo"}')
    # The answer can be sent back as it came.
    turns = [*MESSAGES, answer.choices[0].message, {"role": "tool", "tool_call_id": "c1", "content": "rain"}]
    running.router.default = Act()
    await running.openai.chat.completions.create(model="fake-model", messages=turns, tools=tools)
    sent = running.router.requests[-1].generation.prompt.chat.messages
    assert sent[1].tool_calls[0].arguments_json == '{"city":"Oslo"}'
    assert sent[2].tool_call_id == "c1"


async def test_completions(running: Running) -> None:
    answer = await running.openai.completions.create(model="fake-model", prompt=["a", "b"], echo=True, max_tokens=4)
    assert [(c.index, c.text, c.finish_reason) for c in answer.choices] == [
        (0, "aHello there", "stop"),
        (1, "bHello there", "stop"),
    ]
    assert answer.usage.completion_tokens == 6
    tokens = await running.openai.completions.create(model="fake-model", prompt=[1, 2, 3], logprobs=1)
    assert tokens.choices[0].logprobs.tokens == ["Hel", "lo", " there"]
    assert tokens.choices[0].logprobs.text_offset == [0, 3, 5]
    assert list(running.router.requests[-1].generation.prompt.tokens.token_ids) == [1, 2, 3]


async def test_a_completion_stream(running: Running) -> None:
    stream = await running.openai.completions.create(model="fake-model", prompt=["a", "b"], stream=True)
    texts = {0: "", 1: ""}
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == {0: "Hello there", 1: "Hello there"}


async def test_models(running: Running) -> None:
    models = [model async for model in await running.openai.models.list()]
    assert [model.id for model in models] == ["fake-model", "org/other"]
    assert (await running.openai.models.retrieve("org/other")).id == "org/other"
    with pytest.raises(openai.NotFoundError) as caught:
        await running.openai.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"extra_body": {"nonsense": 1}}, "nonsense"),
    ],
)
async def test_bad_requests_name_the_field(running: Running, options: dict[str, object], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await running.openai.chat.completions.create(**({"model": "fake-model", "messages": MESSAGES} | options))
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert running.router.requests == []


async def test_what_only_a_node_can_tell_names_the_field_too(running: Running) -> None:
    field = "generation.sampling.max_tokens"
    message = f"{field}: 9000 and a prompt of 5 exceed the context of 8192"
    running.router.default = Act(after=0, error=InvalidArgument(message, reason="CONTEXT_TOO_LONG", field=field))
    with pytest.raises(openai.BadRequestError) as caught:
        await running.openai.chat.completions.create(model="fake-model", messages=MESSAGES, max_completion_tokens=9000)
    assert (caught.value.param, caught.value.code) == ("max_completion_tokens", "context_length_exceeded")
    assert "generation.sampling" not in caught.value.message


async def test_an_unknown_model(running: Running) -> None:
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError) as caught:
            await running.openai.chat.completions.create(model="nobody", messages=MESSAGES, stream=stream)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("key", ["wrong", "hr-integration-key2", "x" * 5000])
async def test_a_wrong_key(running: Running, key: str) -> None:
    client = running.openai.copy(api_key=key)
    with pytest.raises(openai.AuthenticationError) as caught:
        await client.chat.completions.create(model="fake-model", messages=MESSAGES)
    assert caught.value.code == "invalid_api_key"
    assert caught.value.response.headers["www-authenticate"].startswith("Bearer")
    assert key not in caught.value.message


@pytest.mark.parametrize("stream", [False, True])
async def test_what_fails_before_the_first_token_has_a_status(running: Running, stream: bool) -> None:
    busy = ResourceExhausted("every deployment is too busy", reason="ALL_DEPLOYMENTS_BUSY", retry_after_s=1.5)
    running.router.acts.append(Act(after=0, error=busy))
    with pytest.raises(openai.RateLimitError) as limited:
        await running.openai.chat.completions.create(model="fake-model", messages=MESSAGES, stream=stream)
    assert limited.value.response.headers["retry-after"] == "2"
    assert limited.value.response.headers["retry-after-ms"] == "1500"
    assert limited.value.code == "all_deployments_busy"

    running.router.acts.append(Act(after=0, error=Unavailable("nobody", reason="NO_HEALTHY_DEPLOYMENT")))
    with pytest.raises(openai.InternalServerError) as gone:
        await running.openai.chat.completions.create(model="fake-model", messages=MESSAGES, stream=stream)
    assert gone.value.status_code == 503
    assert "retry-after" in gone.value.response.headers

    running.router.acts.append(Act(after=0, error=DeadlineExceeded("too late")))
    with pytest.raises(openai.InternalServerError) as late:
        await running.openai.chat.completions.create(model="fake-model", messages=MESSAGES, stream=stream)
    assert (late.value.status_code, late.value.type) == (504, "timeout")


async def test_the_clients_retries_find_the_answer(running: Running) -> None:
    error = ResourceExhausted("busy", retry_after_s=0.01)
    running.router.acts.extend([Act(after=0, error=error)] * 2)
    client = running.openai.copy(max_retries=2)
    answer = await client.chat.completions.create(model="fake-model", messages=MESSAGES)
    assert answer.choices[0].message.content == "Hello there"
    assert len(running.router.requests) == 3


async def test_the_clients_own_timeout_travels_on(tmp_path: Path) -> None:
    async with gateway(tmp_path, deadline_s=600.0) as running:
        client = running.openai.copy(timeout=70)
        await client.chat.completions.create(model="fake-model", messages=MESSAGES)
        await client.chat.completions.create(
            model="fake-model", messages=MESSAGES, extra_headers={"x-headrace-timeout": "30"}
        )
        await running.openai.chat.completions.create(model="fake-model", messages=MESSAGES)
        # What is left of it at the router.
        assert running.router.deadlines == pytest.approx([70, 30, 600], abs=19)
