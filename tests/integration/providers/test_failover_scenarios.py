"""What callers get when a provider fails in each of the ways that providers fail, with another one behind it.

A real router before two real nodes, each before a scriptable provider. Every answer is judged: `pass`, it is whole and
that of an undisturbed run; `partial`, it is a beginning of that, ended by a typed error; `safe`, a typed error and no
more; `fail`, anything else. docs/benchmarks.md shows the same table.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.common.v1 import generation_pb2 as common
from mesh.errors import MeshError
from ops.drills.provider.app import ProviderOptions
from ops.drills.provider.faults import Fault, Kind
from tests.integration.providers.nodes import provider_node
from tests.integration.router.harness import TIMERS, Answer, Running, router

_DOCUMENT = Path(__file__).parents[3] / "docs/benchmarks.md"
_WORDS = 12
# What ends silences; long beside what an undisturbed provider takes.
_SHORT = {"headers_s": 0.6, "first_token_s": 0.8, "gap_s": 1.2}
_HTML = "<html><body><h1>Bad Gateway</h1></body></html>"
# Well below the timers of the patient ones, and of a request without any.
_BOUND_S = 30.0


def _said(message: str, code: str, kind: str = "invalid_request_error") -> str:
    return json.dumps({"error": {"message": message, "type": kind, "param": "messages", "code": code}})


_TOO_LONG = _said("This model's maximum context length is 8192 tokens.", "context_length_exceeded")
_POLICY = _said("The request was rejected by our safety system.", "content_policy_violation")


@dataclass(frozen=True)
class Scenario:
    """A way to fail, and what callers get: streamed, whole, and streamed with `commit: whole`."""

    name: str
    fault: Fault
    streamed: str = "pass"
    whole: str = "pass"
    held: str = "pass"


SCENARIOS = [
    Scenario("connection refused", Fault(Kind.REFUSE, lasts_s=60)),
    Scenario("HTTP 500", Fault(Kind.STATUS, status=500)),
    Scenario("HTTP 502 with a page", Fault(Kind.REPLY, status=502, content_type="text/html", body=_HTML)),
    Scenario("HTTP 503 with a page", Fault(Kind.REPLY, status=503, content_type="text/html", body=_HTML)),
    Scenario("HTTP 429 with Retry-After", Fault(Kind.RATE_LIMIT, retry_after="30")),
    Scenario("HTTP 401, invalid key", Fault(Kind.STATUS, status=401)),
    Scenario("no headers", Fault(Kind.NO_HEADERS)),
    Scenario("no first token", Fault(Kind.SILENT)),
    Scenario("a drip after the first tokens", Fault(Kind.DRIP, after=5, interval_s=60), streamed="partial"),
    Scenario("cut before the first token", Fault(Kind.CUT, after=0)),
    Scenario("cut after the first tokens", Fault(Kind.CUT, after=5), streamed="partial"),
    Scenario("no [DONE]", Fault(Kind.UNTERMINATED)),
    Scenario("neither usage nor [DONE]", Fault(Kind.NO_DONE), streamed="partial"),
    Scenario("a malformed chunk", Fault(Kind.MALFORMED, after=5), streamed="partial"),
    Scenario("200 with an empty body", Fault(Kind.REPLY, status=200)),
    Scenario("200 with an error as body", Fault(Kind.ERROR_BODY)),
    Scenario("an error event after the first tokens", Fault(Kind.ERROR_EVENT, after=5), streamed="partial"),
    Scenario("context length exceeded", Fault(Kind.REPLY, status=400, body=_TOO_LONG)),
    Scenario("refused by content policy", Fault(Kind.REPLY, status=400, body=_POLICY), "safe", "safe", "safe"),
    Scenario("200 with another content type", Fault(Kind.REPLY, status=200, content_type="text/html", body=_HTML)),
]


def judged(answer: Answer, undisturbed: str) -> str:
    """The word for what a caller got."""
    typed = isinstance(answer.error, MeshError) and bool(answer.error.reason)
    if answer.error is None:
        whole = answer.text == undisturbed and answer.finishes == [common.FINISH_REASON_STOP]
        return "pass" if whole and answer.messages[-1].HasField("summary") else "fail"
    if not typed or answer.finishes or not undisturbed.startswith(answer.text):
        return "fail"
    return "partial" if answer.text else "safe"


def routing() -> dict[str, object]:
    """What is given is the chain, and limits that make silences short; all else is as it is by default."""
    shaky, steady = ({"name": name, "service": name, "model": name} for name in ("shaky", "steady"))
    chain = ["shaky", "steady"]
    return {
        "deployments": [shaky | {"timers": TIMERS | _SHORT}, steady],
        "models": [
            {"name": "pub", "chain": chain},
            {"name": "held", "chain": chain, "commit": "whole"},
            {"name": "undisturbed", "chain": ["steady"]},
        ],
        "timers": TIMERS,
    }


async def _bounded(running: Running, **options: object) -> Answer:
    async with asyncio.timeout(_BOUND_S):
        return await running.answer("what is a headrace?", chat=True, **options)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_every_way_to_fail_ends_as_it_should(tmp_path: Path, scenario: Scenario) -> None:
    options = ProviderOptions(answer_tokens=_WORDS, token_interval_s=0.005)
    async with (
        provider_node("shaky", options) as shaky,
        provider_node("steady", options) as steady,
        router(tmp_path, {"shaky": [shaky], "steady": [steady]}, routing()) as running,
    ):
        undisturbed = (await _bounded(running, model="undisturbed")).text
        assert len(undisturbed.split()) == _WORDS
        await shaky.provider.set_faults([scenario.fault])
        answers = {
            "streamed": await _bounded(running),
            "whole": await _bounded(running, whole=True),
            "held": await _bounded(running, model="held"),
        }
        got = {name: judged(answer, undisturbed) for name, answer in answers.items()}
        assert got == {"streamed": scenario.streamed, "whole": scenario.whole, "held": scenario.held}
        # The failing one was really asked first.
        assert answers["streamed"].disclosure.attempts[0].deployment == "shaky"
        # A whole answer crosses as one message.
        assert len(answers["whole"].messages) <= 1


ALONE = {
    "one HTTP 500": Fault(Kind.STATUS, status=500, calls=1),
    "one HTTP 429 with a short Retry-After": Fault(Kind.RATE_LIMIT, retry_after="1", calls=1),
    "one cut before the first token": Fault(Kind.CUT, after=0, calls=1),
}


@pytest.mark.parametrize("name", ALONE)
async def test_what_passes_is_outlived_with_nobody_else_to_ask(tmp_path: Path, name: str) -> None:
    options = ProviderOptions(answer_tokens=_WORDS)
    deployment = {"name": "shaky", "service": "shaky", "model": "shaky"}
    alone = {"deployments": [deployment], "models": [{"name": "pub", "chain": ["shaky"]}], "timers": TIMERS}
    async with provider_node("shaky", options) as shaky, router(tmp_path, {"shaky": [shaky]}, alone) as running:
        undisturbed = (await _bounded(running)).text
        for whole in (False, True):
            await shaky.provider.set_faults([ALONE[name]])
            answer = await _bounded(running, whole=whole)
            assert judged(answer, undisturbed) == "pass"
            assert len(answer.disclosure.attempts) == 2


def test_the_document_shows_the_same_table() -> None:
    rows = dict(re.findall(r"^\| (.+?) \| (\w+ \| \w+ \| \w+) \|$", _DOCUMENT.read_text(), re.MULTILINE))
    shown = {s.name: rows.get(s.name) for s in SCENARIOS}
    assert shown == {s.name: f"{s.streamed} | {s.whole} | {s.held}" for s in SCENARIOS}
