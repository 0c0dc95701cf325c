"""The OpenAI engine against the scriptable provider, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest

from headrace.common.v1 import generation_pb2 as pb
from inference.adapters.providers.openai import OpenAISettings, build
from inference.core.chat_port import ChatEngine, ChatEvent
from mesh.config import Secret
from mesh.errors import MeshError, Outcome
from ops.drills.provider.app import Provider, ProviderOptions
from ops.drills.provider.faults import Fault, Kind
from tests.unit.inference.providers.asking import USER, WEATHER, chat_request

# Longer than any pause of a busy machine, and than any wait of these tests: no timer runs out unless it is the test.
_PATIENT_S = 40.0
_HASTY_S = 0.4
_WAIT_S = 20.0


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """A provider that answers with eight words."""
    running = Provider(ProviderOptions(answer_tokens=8))
    await running.start()
    yield running
    await running.close()


@pytest.fixture
async def engine(provider: Provider) -> AsyncIterator[ChatEngine]:
    """An engine that asks it."""
    settings = OpenAISettings(
        upstream_model="demo",
        base_url=f"http://127.0.0.1:{provider.port}/v1",
        api_key=Secret("sk-secret-value"),
        max_running=2,
        connect_s=_PATIENT_S,
    )
    made = build(settings).engine
    await made.start()
    yield made
    await made.close()


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(_WAIT_S):
        while not holds():
            await asyncio.sleep(0.005)


async def _ask(engine: ChatEngine, **chat: Any) -> tuple[list[ChatEvent], MeshError | None]:
    events: list[ChatEvent] = []
    try:
        async for event in engine.generate(chat_request(USER, **chat)):
            events.append(event)
    except MeshError as error:
        return events, error
    return events, None


def _text(events: list[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, pb.ChoiceDelta))


def _finishes(events: list[ChatEvent]) -> list[int]:
    return [e.finish_reason for e in events if isinstance(e, pb.ChoiceDelta) and e.finish_reason]


async def test_the_answer_is_what_the_official_client_reads(provider: Provider, engine: ChatEngine) -> None:
    """Same question, same words, same usage, by way of the engine and by way of OpenAI's own client."""
    events, error = await _ask(engine, sampling={"max_tokens": 5})
    assert error is None
    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{provider.port}/v1", api_key="x", max_retries=0)
    async with client:
        whole = await client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": USER["text"]}], max_tokens=5
        )
    assert _text(events) == whole.choices[0].message.content
    assert _finishes(events) == [pb.FINISH_REASON_LENGTH]
    summary = events[-1]
    assert isinstance(summary, pb.GenerationSummary)
    assert whole.usage is not None
    assert summary.usage.completion_tokens == whole.usage.completion_tokens == 5
    assert summary.usage.prompt_tokens == whole.usage.prompt_tokens == 6


async def test_tools_and_choices(engine: ChatEngine) -> None:
    """A call that is insisted on comes; several choices are told apart."""
    events, _ = await _ask(engine, tools=[WEATHER], tool_choice={"mode": "MODE_REQUIRED"})
    calls = [call for e in events if isinstance(e, pb.ChoiceDelta) for call in e.tool_calls]
    assert calls[0].name == "weather"
    assert _finishes(events) == [pb.FINISH_REASON_TOOL_CALLS]
    events, _ = await _ask(engine, sampling={"n": 2})
    assert {e.index for e in events if isinstance(e, pb.ChoiceDelta)} == {0, 1}
    assert len(_finishes(events)) == 2


@pytest.mark.parametrize(
    ("fault", "reason", "outcome"),
    [
        (Fault(Kind.CUT, after=0), "PROVIDER_STREAM_BROKEN", Outcome.FAULT),
        (Fault(Kind.CUT, after=4), "PROVIDER_STREAM_BROKEN", Outcome.MIDSTREAM_FAULT),
        (Fault(Kind.MALFORMED, after=0), "PROVIDER_MALFORMED", Outcome.FAULT),
        (Fault(Kind.MALFORMED, after=4), "PROVIDER_MALFORMED", Outcome.MIDSTREAM_FAULT),
        (Fault(Kind.ERROR_BODY), "PROVIDER_FAILED", Outcome.FAULT),
        (Fault(Kind.ERROR_EVENT, after=0), "PROVIDER_FAILED", Outcome.FAULT),
        (Fault(Kind.ERROR_EVENT, after=4), "PROVIDER_FAILED", Outcome.MIDSTREAM_FAULT),
        (Fault(Kind.NO_DONE), "PROVIDER_STREAM_ENDED_EARLY", Outcome.MIDSTREAM_FAULT),
        (Fault(Kind.RATE_LIMIT, retry_after="7"), "PROVIDER_RATE_LIMITED", Outcome.BACKPRESSURE),
        (Fault(Kind.STATUS, status=500), "PROVIDER_FAILED", Outcome.FAULT),
        (Fault(Kind.STATUS, status=401), "PROVIDER_REFUSED_ACCOUNT", Outcome.FAULT),
        (Fault(Kind.REFUSE), "CONNECT_FAILED", Outcome.FAULT),
    ],
)
async def test_every_fault_ends_in_its_error(
    provider: Provider, engine: ChatEngine, fault: Fault, reason: str, outcome: Outcome
) -> None:
    """Never as a finished answer; healed, the next answer is whole."""
    whole, _ = await _ask(engine)
    await provider.set_faults([fault])
    events, error = await _ask(engine)
    assert error is not None
    assert (error.reason, error.outcome) == (reason, outcome)
    assert not _finishes(events)
    assert _text(whole).startswith(_text(events))
    assert (outcome is Outcome.MIDSTREAM_FAULT) == bool(events)
    if fault.kind is Kind.RATE_LIMIT:
        assert error.retry_after_s == 7.0
    await provider.set_faults([])
    healed, error = await _ask(engine)
    assert error is None
    assert _text(healed) == _text(whole)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(Kind.STALL, after=0),
        Fault(Kind.STALL, after=4),
        Fault(Kind.SILENT),
        Fault(Kind.NO_HEADERS),
        Fault(Kind.DRIP, after=4, interval_s=_PATIENT_S),
    ],
    ids=lambda fault: f"{fault.kind.value}-{fault.after}",
)
async def test_a_silence_lasts_as_long_as_its_caller_waits(
    provider: Provider, engine: ChatEngine, fault: Fault
) -> None:
    """The node has no timers of its own for it; when the caller's time is over, the provider's work is too."""
    await provider.set_faults([fault])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(_HASTY_S):
            await _ask(engine)
    await _until(lambda: provider.report()["outcomes"] == {"cancelled": 1})
    assert engine.load().running == 0


async def test_leaving_closes_the_connection(provider: Provider, engine: ChatEngine) -> None:
    """A caller that goes away stops the provider's work, long before any timer would."""
    await provider.set_faults([Fault(Kind.STALL, after=3)])
    task = asyncio.create_task(_ask(engine))
    await _until(lambda: [call["chunks"] for call in provider.report()["journal"]] == [3])
    assert engine.load().running == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: provider.report()["outcomes"] == {"cancelled": 1})
    assert engine.load().running == 0


async def test_more_calls_than_allowed_are_back_pressure(provider: Provider, engine: ChatEngine) -> None:
    """The third of two is told to come back; places are given back when the others end."""
    await provider.set_faults([Fault(Kind.STALL, after=0)])
    held = [asyncio.create_task(_ask(engine)) for _ in range(2)]
    await _until(lambda: engine.load().running == 2)
    _, error = await _ask(engine)
    assert error is not None
    assert (error.reason, error.outcome) == ("QUEUE_FULL", Outcome.BACKPRESSURE)
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    await provider.set_faults([])
    _, error = await _ask(engine)
    assert error is None


async def test_kept_connections_are_used_again(provider: Provider, engine: ChatEngine) -> None:
    """A stream that was read to its end leaves its connection to the next call."""
    for _ in range(3):
        await _ask(engine)
    assert provider.report()["connections"] == 1
