"""A router before two providers: every way in which the first goes wrong, before and after the first token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.errors import Outcome
from ops.drills.provider.app import ProviderOptions
from ops.drills.provider.faults import Fault, Kind
from tests.integration.providers.nodes import ProviderNode, provider_node
from tests.integration.router.harness import QUICK_TIMERS, Running, router

_CONFIG = {
    "deployments": [{"name": name, "service": name, "model": name} for name in ("shaky", "steady")],
    "models": [{"name": "pub", "chain": ["shaky", "steady"]}],
    "timers": QUICK_TIMERS,
    "ramp": {"seconds": 0},
}
# The longest of the timers that a silence can run into, and what it may be late by.
_WITHIN_S = max(QUICK_TIMERS.values()) + 0.25
_WORDS = 8
_BEFORE = [
    Fault(Kind.CUT, after=0),
    Fault(Kind.STALL, after=0),
    Fault(Kind.MALFORMED, after=0),
    Fault(Kind.DRIP, after=0, interval_s=5),
    Fault(Kind.ERROR_EVENT, after=0),
    Fault(Kind.SILENT),
    Fault(Kind.NO_HEADERS),
    Fault(Kind.ERROR_BODY),
    Fault(Kind.RATE_LIMIT),
    Fault(Kind.STATUS, status=500),
    Fault(Kind.STATUS, status=401),
    Fault(Kind.REFUSE),
]
# The first chunk holds no words: after five there are four.
_AFTER = [
    Fault(Kind.CUT, after=5),
    Fault(Kind.STALL, after=5),
    Fault(Kind.MALFORMED, after=5),
    Fault(Kind.DRIP, after=5, interval_s=5),
    Fault(Kind.ERROR_EVENT, after=5),
    Fault(Kind.NO_DONE),
]
Mesh = tuple[Running, ProviderNode, ProviderNode]


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    """The nodes are patient: what is tested is the router's patience."""
    # Slow enough that the router has passed words on before the fault comes.
    options = ProviderOptions(answer_tokens=_WORDS, token_interval_s=0.005)
    async with (
        provider_node("shaky", options) as shaky,
        provider_node("steady", options) as steady,
        router(tmp_path, {"shaky": [shaky], "steady": [steady]}, _CONFIG) as running,
    ):
        yield running, shaky, steady


@pytest.mark.parametrize("fault", _BEFORE, ids=lambda fault: f"{fault.kind.value}-{fault.status}")
async def test_before_the_first_token_nobody_sees_it(mesh: Mesh, fault: Fault) -> None:
    """The other provider's answer comes, whole, and it was really asked."""
    running, shaky, steady = mesh
    whole = await running.answer(chat=True)
    await shaky.provider.set_faults([fault])
    started = time.monotonic()
    answer = await running.answer(chat=True)
    took = time.monotonic() - started
    assert answer.error is None
    assert answer.text == whole.text
    assert len(answer.finishes) == 1
    assert [attempt.deployment for attempt in answer.disclosure.attempts] == ["shaky", "steady"]
    assert not answer.disclosure.spliced
    assert steady.provider.report()["calls"] == 1
    assert took < _WITHIN_S


@pytest.mark.parametrize("fault", _AFTER, ids=lambda fault: fault.kind.value)
async def test_after_it_the_stream_ends_in_a_typed_error(mesh: Mesh, fault: Fault) -> None:
    """Providers give no tokens to resume from, so the caller is told, within the timer, and no finish is faked."""
    running, shaky, steady = mesh
    whole = await running.answer(chat=True)
    await shaky.provider.set_faults([fault])
    started = time.monotonic()
    answer = await running.answer(chat=True)
    took = time.monotonic() - started
    assert answer.error is not None
    assert answer.error.outcome is Outcome.MIDSTREAM_FAULT
    assert answer.error.reason == "STREAM_CUT"
    assert not answer.finishes
    assert answer.text
    assert whole.text.startswith(answer.text)
    assert steady.provider.report()["calls"] == 0
    assert took < _WITHIN_S


async def test_a_storm_of_429_opens_no_breaker(mesh: Mesh) -> None:
    """The provider is left alone for its Retry-After, and its breaker stays closed."""
    running, shaky, steady = mesh
    await shaky.provider.set_faults([Fault(Kind.RATE_LIMIT, retry_after="30")])
    answers = [await running.answer(chat=True) for _ in range(20)]
    assert all(answer.error is None for answer in answers)
    assert shaky.provider.report()["calls"] == 1
    assert steady.provider.report()["calls"] == 20
    state = await running.state()
    assert {replica.breaker for replica in state.values()} == {1}


async def test_a_caller_that_leaves_ends_the_providers_work(mesh: Mesh) -> None:
    """Through router and node to the provider's connection, at once."""
    running, shaky, _ = mesh
    await shaky.provider.set_faults([Fault(Kind.STALL, after=5)])
    call = running.ask(chat=True)
    async for message in call:
        if message.deltas:
            break
    call.cancel()
    deadline = time.monotonic() + 0.25
    while shaky.provider.report()["outcomes"] != {"cancelled": 1}:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
