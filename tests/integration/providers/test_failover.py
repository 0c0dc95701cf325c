"""A router before two providers: every way in which the first goes wrong, before and after the first token."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.errors import Outcome
from ops.drills.provider.app import ProviderOptions
from ops.drills.provider.faults import Fault, Kind
from tests.integration.providers.nodes import ProviderNode, provider_node
from tests.integration.router.harness import PATIENT_S, TIMERS, Running, router, until

_NAMES = ("shaky", "steady")
_WORDS = 8
# What ends a silence before the first token, and after it; all else is patient.
_FIRST = {"headers_s": 0.4, "first_token_s": 0.5}
_GAP = {"gap_s": 1.0}
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


@contextlib.asynccontextmanager
async def mesh(folder: Path, **timers: float) -> AsyncIterator[Mesh]:
    """The nodes are patient, and so is the router but for those limits, which hold for the shaky one."""
    # Slow enough that the router has passed words on before the fault comes.
    options = ProviderOptions(answer_tokens=_WORDS, token_interval_s=0.005)
    shaky_one, steady_one = ({"name": name, "service": name, "model": name} for name in _NAMES)
    config = {
        "deployments": [shaky_one | {"timers": TIMERS | timers}, steady_one, shaky_one | {"name": "undisturbed"}],
        "models": [{"name": "pub", "chain": list(_NAMES)}, {"name": "whole", "chain": ["undisturbed"]}],
        "timers": TIMERS,
        "ramp": {"seconds": 0},
    }
    async with (
        provider_node("shaky", options) as shaky,
        provider_node("steady", options) as steady,
        router(folder, {"shaky": [shaky], "steady": [steady]}, config) as running,
    ):
        yield running, shaky, steady


@pytest.mark.parametrize("fault", _BEFORE, ids=lambda fault: f"{fault.kind.value}-{fault.status}")
async def test_before_the_first_token_nobody_sees_it(tmp_path: Path, fault: Fault) -> None:
    """The other provider's answer comes, whole, and it was really asked."""
    async with mesh(tmp_path, **_FIRST) as (running, shaky, steady):
        whole = await running.answer(model="whole", chat=True)
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
        assert took < PATIENT_S


@pytest.mark.parametrize("fault", _AFTER, ids=lambda fault: fault.kind.value)
async def test_after_it_the_stream_ends_in_a_typed_error(tmp_path: Path, fault: Fault) -> None:
    """Providers give no tokens to resume from, so the caller is told, within the timer, and no finish is faked."""
    async with mesh(tmp_path, **_GAP) as (running, shaky, steady):
        whole = await running.answer(model="whole", chat=True)
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
        assert took < PATIENT_S


async def test_a_storm_of_429_opens_no_breaker(tmp_path: Path) -> None:
    """The provider is left alone for its Retry-After, and its breaker stays closed."""
    async with mesh(tmp_path) as (running, shaky, steady):
        await shaky.provider.set_faults([Fault(Kind.RATE_LIMIT, retry_after="60")])
        answers = [await running.answer(chat=True) for _ in range(20)]
        assert all(answer.error is None for answer in answers)
        assert shaky.provider.report()["calls"] == 1
        assert steady.provider.report()["calls"] == 20
        state = await running.state()
        assert {replica.breaker for replica in state.values()} == {1}


async def test_a_caller_that_leaves_ends_the_providers_work(tmp_path: Path) -> None:
    """Through router and node to the provider's connection, long before any timer would."""
    async with mesh(tmp_path) as (running, shaky, _):
        await shaky.provider.set_faults([Fault(Kind.STALL, after=5)])
        call = running.ask(chat=True)
        async for message in call:
            if message.deltas:
                break
        call.cancel()
        await until(lambda: shaky.provider.report()["outcomes"] == {"cancelled": 1})
