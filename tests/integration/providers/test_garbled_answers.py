"""A router before a provider whose model garbles its own answers: nobody's fault but the model's."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.errors import Outcome
from ops.drills.provider.app import ProviderOptions
from tests.integration.providers.nodes import provider_node, running_node
from tests.integration.providers.serving import CHUNKED, Server, chunk, event, serving
from tests.integration.router.harness import TIMERS, Running, router

_SAID = "Malformed function call: print(x)"
_CLOSED = 1


@contextlib.asynccontextmanager
async def mesh(folder: Path, *sent: bytes) -> AsyncIterator[tuple[Running, Server]]:
    """A Gemini node before a server that sends those events, alone and before a provider that answers."""
    config = {
        "deployments": [{"name": name, "service": name, "model": name} for name in ("gem", "steady")],
        "models": [{"name": "pub", "chain": ["gem"]}, {"name": "two", "chain": ["gem", "steady"]}],
        "timers": TIMERS,
        "ramp": {"seconds": 0},
    }
    async with (
        serving(CHUNKED, *map(chunk, sent), chunk(b"")) as server,
        running_node("gem", ENGINE="gemini", UPSTREAM_MODEL="g", BASE_URL=server.url) as gem,
        provider_node("steady", ProviderOptions(answer_tokens=4)) as steady,
        router(folder, {"gem": [gem], "steady": [steady]}, config) as running,
    ):
        yield running, server


@pytest.mark.parametrize("word", ["MALFORMED_FUNCTION_CALL", "OTHER"])
async def test_it_is_asked_once_and_opens_no_breaker(tmp_path: Path, word: str) -> None:
    """However often it happens; the caller learns the provider's words."""
    last = event({"candidates": [{"finishReason": word, "finishMessage": _SAID}]})
    async with mesh(tmp_path, last) as (running, server):
        for asked in range(1, 9):
            answer = await running.answer(chat=True)
            assert answer.error is not None
            assert (answer.error.reason, answer.error.outcome) == ("MODEL_FAILED", Outcome.CALLER_FAULT)
            assert f"({word}): {_SAID}" in answer.error.message
            assert len(server.asked) == asked
        assert {replica.breaker for replica in (await running.state()).values()} == {_CLOSED}
        # Another model may do better.
        answer = await running.answer(model="two", chat=True)
        assert answer.error is None
        assert [attempt.deployment for attempt in answer.disclosure.attempts] == ["gem", "steady"]


async def test_in_mid_stream_it_counts_against_nobody_either(tmp_path: Path) -> None:
    """The words are out, so the caller is told."""
    begun = event({"candidates": [{"content": {"parts": [{"text": "Well, "}]}}]})
    last = event({"candidates": [{"finishReason": "OTHER"}]})
    async with mesh(tmp_path, begun, last) as (running, server):
        for asked in range(1, 9):
            answer = await running.answer(chat=True)
            assert answer.error is not None
            assert "MODEL_FAILED" in (answer.error.reason, answer.error.metadata.get("cause"))
            assert not answer.finishes
            assert len(server.asked) == asked
        assert {replica.breaker for replica in (await running.state()).values()} == {_CLOSED}
