"""The OpenAPI document: right in itself, and what the gateway does is what it says."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.generation import GenerationMode

from gateway.core.openai.openapi import document
from tests.integration.gateway.harness import HEADERS, gateway, until

# Not "positive data acceptance": what fields have to do with each other, a schema cannot say.
schemathesis.checks.load_all_checks()
CHECKS = [
    schemathesis.checks.CHECKS.get_one(name)
    for name in (
        *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
        *("response_schema_conformance", "negative_data_rejection", "unsupported_method"),
    )
]
# What is drawn is the same each time: a failure is a finding, not chance.
SETTINGS = hypothesis.settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_leads_somewhere() -> None:
    made = document()
    known = {f"#/components/schemas/{name}" for name in made["components"]["schemas"]}
    assert set(references(made)) <= known
    assert {"#/components/schemas/ChatCompletionRequest", "#/components/schemas/ErrorBody"} <= set(references(made))


def test_requests_are_closed_and_bounded() -> None:
    chat = document()["components"]["schemas"]["ChatCompletionRequest"]
    assert chat["additionalProperties"] is False
    assert set(chat["required"]) == {"model", "messages"}
    assert chat["properties"]["messages"]["minItems"] == 1


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize("operation", ["createChatCompletion", "createCompletion"])
async def test_generating_does_what_the_document_says(tmp_path: Path, operation: str, mode: GenerationMode) -> None:
    async with gateway(tmp_path) as running:
        await asyncio.to_thread(probe, operation, mode, running.url)
        # Whatever came in, nothing was left behind.
        await until(lambda: running.router.active == 0)


@pytest.mark.parametrize("operation", ["listModels", "showModel", "live", "ready"])
async def test_reading_does_what_the_document_says(tmp_path: Path, operation: str) -> None:
    async with gateway(tmp_path) as running:
        await asyncio.to_thread(probe, operation, GenerationMode.POSITIVE, running.url)


def probe(operation: str, mode: GenerationMode, url: str) -> None:
    """Call the operation with many requests that are right, or wrong, by its schema."""
    schema = schemathesis.openapi.from_dict(document()).include(operation_id=operation)
    (found,) = (result.ok() for result in schema.get_all_operations())

    @SETTINGS
    @hypothesis.given(case=found.as_strategy(mode))
    def call(case: schemathesis.Case) -> None:
        # The model that there is in the place of any other: or nothing would get past its name.
        if isinstance(case.body, dict) and isinstance(name := case.body.get("model"), str) and 1 <= len(name) <= 256:
            case.body["model"] = "fake-model"
        if mode is GenerationMode.POSITIVE:
            # Next to no time is allowed, and rightly answered with a 504.
            case.headers.pop("x-headrace-timeout", None)
        case.call_and_validate(base_url=url, headers=HEADERS, checks=CHECKS, timeout=60)

    call()
