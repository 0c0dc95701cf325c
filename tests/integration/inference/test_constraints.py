"""SmolLM2 in the torch engine held to schemas: whatever it draws at temperature 1, what it ends is valid."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import jsonschema_rs
import pytest
import pytest_asyncio

from inference.adapters.model_files import SMOLLM2
from inference.adapters.tokenizer import load_text_model
from inference.adapters.torch.config import TorchEngineConfig
from inference.adapters.torch.engine import TorchEngine, build
from inference.core.port import Constraint, ConstraintKind, EngineDelta, EngineRequest, Finish, SamplingParams
from inference.core.templating import Turn

pytestmark = pytest.mark.asyncio(loop_scope="module")
SCHEMAS, TOKENS = 24, 160
LEAVES: list[Any] = [
    {"type": "integer", "minimum": -5, "maximum": 120},
    {"type": "number", "minimum": 0},
    {"type": "boolean"},
    {"type": "null"},
    {"enum": ["red", "green", 7, None]},
    {"const": "fixed"},
    {"type": "string", "maxLength": 20},
    {"type": "string", "minLength": 3, "maxLength": 12},
    {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    {"type": "string", "format": "date"},
    {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 5}]},
]


def some_schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """An object at the top; below it objects, arrays and what has no parts, two levels deep."""
    kind = "object" if depth == 0 else rng.choice(["object", "array", *["leaf"] * 4])
    if kind == "leaf" or depth == 3:
        return dict(rng.choice(LEAVES))
    if kind == "array":
        minimum = rng.randint(0, 2)
        items = some_schema(rng, depth + 1)
        return {"type": "array", "items": items, "minItems": minimum, "maxItems": minimum + rng.randint(0, 2)}
    names = rng.sample(["id", "name", "count", "tags", "größe", "a b", "x"], rng.randint(1, 3))
    required = [name for name in names if rng.random() < 0.7]
    return {
        "type": "object",
        "properties": {name: some_schema(rng, depth + 1) for name in names},
        "required": required,
        "additionalProperties": False,
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[TorchEngine]:
    running = build(TorchEngineConfig(model_path=SMOLLM2.path(), max_running=SCHEMAS, kv_tokens=8192))
    await running.start()
    yield running
    await running.close()


async def answers_to(
    engine: TorchEngine, schemas: list[dict[str, Any]], tokens: int = TOKENS
) -> list[tuple[str, Finish | None]]:
    """One for each schema, all at once."""
    text = load_text_model(SMOLLM2.path())
    prompt = tuple(text.encode_chat([Turn("user", "Give me an example as JSON, in one line.")]))

    async def answer(number: int) -> tuple[str, Finish | None]:
        constraint = Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(schemas[number]))
        sampling = SamplingParams(max_tokens=tokens, temperature=1.0, seed=number, constraint=constraint)
        written, finish = b"", None
        async for event in engine.generate(EngineRequest(str(number), prompt, sampling)):
            if isinstance(event, EngineDelta):
                written += b"".join(text.tokenizer.token_bytes(token) for token in event.tokens)
                finish = event.finish or finish
        return written.decode(errors="replace"), finish

    return await asyncio.gather(*map(answer, range(len(schemas))))


async def test_every_answer_that_ends_is_valid(engine: TorchEngine) -> None:
    rng = random.Random(20)
    schemas = [some_schema(rng) for _ in range(SCHEMAS)]
    ended = 0
    for schema, (written, finish) in zip(schemas, await answers_to(engine, schemas), strict=True):
        if finish is Finish.STOP:
            ended += 1
            jsonschema_rs.validator_for(schema, validate_formats=True).validate(json.loads(written))
        else:
            assert finish is Finish.LENGTH
    assert ended >= SCHEMAS // 2


async def test_a_length_that_is_counted_ends_the_string_at_its_last_character(engine: TorchEngine) -> None:
    """Every answer runs into its limit or stops just before it, over a real vocabulary."""
    schemas = [{"type": "string", "minLength": 127, "maxLength": maximum} for maximum in (129, 131)]
    for schema, (written, finish) in zip(schemas, await answers_to(engine, schemas, tokens=300), strict=True):
        assert finish is Finish.STOP
        jsonschema_rs.validate(schema, json.loads(written))
