"""SIGTERM to any one process while 16 streams are live: none is severed."""

from __future__ import annotations

import asyncio
import os
import signal

import openai
import pytest

from tests.e2e.mesh_under_test import Mesh
from tests.e2e.streams import Streams, assert_whole, whole_answer

# The process to stop, the model that is being streamed, and whether a second replica takes new requests at once.
_CASES = [
    ("gateway-0", "paced", True),
    ("router-1", "paced", True),
    ("paced-0", "paced", True),
    ("control", "paced", True),
    # The only replica, and the only edge: they finish what they hold; new requests have to wait for the next one.
    ("alone-0", "alone", False),
    ("envoy", "alone", False),
]


@pytest.mark.parametrize(("process", "model", "others"), _CASES, ids=[case[0] for case in _CASES])
async def test_a_process_that_is_stopped_severs_no_stream(
    mesh: Mesh, client: openai.AsyncOpenAI, process: str, model: str, others: bool
) -> None:
    text = await whole_answer(client, model)
    # Found out before: looking takes longer on a busy machine than an answer does.
    pid = await asyncio.to_thread(mesh.pid, process)
    streams = Streams(client, model, 16)
    await streams.under_way()
    os.kill(pid, signal.SIGTERM)
    if others:
        later = Streams(client, model, 4)
        assert_whole(await later.end(), text)
    assert_whole(await streams.end(), text)
    # The supervisor brings it back.
    await asyncio.to_thread(mesh.wait_replaced, process, pid)
