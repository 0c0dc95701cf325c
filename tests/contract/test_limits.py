"""The contracts' limits: one table, which the documents, the .proto files, gateways, routers and nodes agree with."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.core.generation_checks import check_generation as gateway_checks
from gateway.core.openai.api_requests import ChatApiRequest
from headrace.common.v1.generation_pb2 import Generation
from headrace.inference.v1.inference_pb2 import Capabilities
from headrace.router.v1.router_pb2 import GenerateRequest
from inference.core.checks import RequestError
from inference.core.checks import check_generation as node_checks
from mesh.contract_limits import BIAS, MAX_STOP_CHARACTERS, MAX_STOPS, SAMPLING, table
from mesh.errors import InvalidArgument
from router.servicer import check as router_checks

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = Capabilities(chat=True, completion=True, tools=True, logprobs=True, resume=True)
# Counts whose unset value stands for the model's default.
_ZERO_IS_UNSET = {"n": 1}


def generation(**sampling: Any) -> Generation:
    made = Generation(model="m")
    made.prompt.chat.messages.add(role=3).content.add(text="hi")
    bias = sampling.pop("logit_bias", {})
    for name, value in sampling.items():
        if name == "stop":
            made.sampling.stop.extend(value)
        else:
            setattr(made.sampling, name, value)
    made.sampling.logprobs = "top_logprobs" in sampling
    for token, value in bias.items():
        made.sampling.logit_bias[token] = value
    return made


def openai(**sampling: Any) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "logprobs": "top_logprobs" in sampling}
    ChatApiRequest.decode(json.dumps(body | sampling).encode())


def beyond() -> list[tuple[str, Any, Any]]:
    """Field, a value at its limit, and one that is just beyond."""
    cases: list[tuple[str, Any, Any]] = []
    for name, limit in SAMPLING.items():
        whole = name in ("top_k", "max_tokens", "n", "top_logprobs")
        step: float = 1 if whole else 0.25
        if limit.high != math.inf:
            high = int(limit.high) if whole else limit.high
            cases.append((name, high, high + step))
        low = (int(limit.low) if whole else limit.low) or _ZERO_IS_UNSET.get(name, 0)
        cases.append((name, low + step if limit.above else low, limit.low if limit.above else int(limit.low) - step))
    cases.append(("stop", ["a"] * MAX_STOPS, ["a"] * (MAX_STOPS + 1)))
    cases.append(("stop", ["a" * MAX_STOP_CHARACTERS], ["a" * (MAX_STOP_CHARACTERS + 1)]))
    cases.append(("stop", ["a"], [""]))
    cases.append(("logit_bias", {1: BIAS.high}, {1: BIAS.high + 1}))
    return cases


CASES = beyond()
IDS = [f"{name}-{i}" for i, (name, _, _) in enumerate(CASES)]


@pytest.mark.parametrize(("name", "within", "beyond"), CASES, ids=IDS)
def test_gateways_and_nodes_hold_to_the_table(name: str, within: Any, beyond: Any) -> None:
    for checks, error in ((gateway_checks, InvalidArgument), (lambda g: node_checks(g, EVERYTHING), RequestError)):
        checks(generation(**{name: within}))
        with pytest.raises(error) as caught:
            checks(generation(**{name: beyond}))
        assert caught.value.field == f"generation.sampling.{name}"
    openai(**{name: within})
    with pytest.raises(InvalidArgument) as refused:
        openai(**{name: beyond})
    assert (refused.value.field or "").startswith(name)


def test_a_router_refuses_what_no_node_would_take() -> None:
    request = GenerateRequest(generation=generation(n=SAMPLING["n"].high.__int__()))
    request.context.tenant = "t"
    router_checks(request)
    request.generation.sampling.n += 1
    with pytest.raises(InvalidArgument) as caught:
        router_checks(request)
    assert caught.value.field == "generation.sampling.n"


def test_the_table_in_the_documents_is_the_codes() -> None:
    text = (ROOT / "docs/contracts.md").read_text(encoding="utf-8")
    written = text.partition("<!-- limits -->\n")[2].partition("<!-- /limits -->")[0].splitlines()
    wanted = ["| field | limit |", "|---|---|", *(f"| `{field}` | {limit} |" for field, limit in table())]
    assert written == wanted, "put this between the marks:\n" + "\n".join(wanted)


def comment_of(message: str, field: str) -> str:
    """What the .proto files say of a field."""
    for path in (ROOT / "protos/headrace/common/v1").glob("*.proto"):
        body = re.search(rf"^message {message} {{\n(.*?)^}}", path.read_text(), re.DOTALL | re.MULTILINE)
        if body is not None:
            found = re.search(rf"((?:^  //[^\n]*\n)+)^  [\w<>, .]+ {field} = ", body[1], re.MULTILINE)
            return found[1] if found else ""
    raise AssertionError(f"no message {message}")


@pytest.mark.parametrize(("field", "limit"), table(), ids=[field for field, _ in table()])
def test_the_contract_says_the_numbers_beside_the_field(field: str, limit: str) -> None:
    said = set(re.findall(r"\d+", comment_of(*field.split(".")).replace(",", "")))
    missing = set(re.findall(r"\d+", limit)) - said - {"0", "1"}
    assert not missing, f"{field}: the comment in the contract does not say {sorted(missing)}"
