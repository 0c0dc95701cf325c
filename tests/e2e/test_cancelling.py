"""A client that goes away frees its slot in the node; a deadline that passes is an error of its own kind.

The node would go on for minutes: that its slot becomes free is never the answer's own end.
"""

from __future__ import annotations

import asyncio

import openai
import pytest

from tests.e2e.loads import load_of, until_running
from tests.e2e.mesh_under_test import Mesh

_MODEL = "endless"
_LONG = [{"role": "user", "content": "Count from one to one thousand, in words."}]
# Seconds: long enough for a request to reach the node on a busy machine.
_SOON = {"x-headrace-timeout": "3"}


async def test_a_client_that_disconnects_frees_its_slot(mesh: Mesh, client: openai.AsyncOpenAI) -> None:
    """The engine is the static one: a model adds its own step, which the node's tests look at."""
    async with load_of(mesh, _MODEL) as reports:
        await until_running(reports, 0)
        stream = await client.chat.completions.create(model=_MODEL, messages=_LONG, stream=True)
        await anext(aiter(stream))
        await until_running(reports, 1)
        await stream.close()
        await until_running(reports, 0)


async def test_a_client_that_disconnects_before_the_answer_frees_its_slot_too(
    mesh: Mesh, client: openai.AsyncOpenAI
) -> None:
    async with load_of(mesh, _MODEL) as reports:
        await until_running(reports, 0)
        asking = asyncio.create_task(client.chat.completions.create(model=_MODEL, messages=_LONG))
        await until_running(reports, 1)
        asking.cancel()
        await until_running(reports, 0)
        await asyncio.gather(asking, return_exceptions=True)


async def test_a_deadline_that_passes_is_a_typed_error_and_frees_the_slot(
    mesh: Mesh, client: openai.AsyncOpenAI
) -> None:
    async with load_of(mesh, _MODEL) as reports:
        await until_running(reports, 0)
        asking = asyncio.create_task(client.chat.completions.create(model=_MODEL, messages=_LONG, extra_headers=_SOON))
        await until_running(reports, 1)
        with pytest.raises(openai.APIStatusError) as late:
            await asking
        assert late.value.status_code == 504
        assert late.value.code == "deadline_exceeded"
        await until_running(reports, 0)


async def test_a_deadline_that_passes_in_a_stream_ends_it_with_a_typed_error(client: openai.AsyncOpenAI) -> None:
    text = ""
    with pytest.raises(openai.APIError) as late:
        async for chunk in await client.chat.completions.create(
            model=_MODEL, messages=_LONG, stream=True, extra_headers=_SOON
        ):
            text += chunk.choices[0].delta.content or ""
    assert text
    assert late.value.code == "deadline_exceeded"
