"""Adapters trained with PEFT on the real model: served as PEFT computes them, several at once, while streams run."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
import torch

from headrace.inference.v1 import inference_pb2 as pb
from inference.adapters.model_files import SMOLLM2
from inference.adapters.tokenizer import load_text_model
from inference.adapters.torch.runner import Precision, RunnerOptions, build_runner
from inference.adapters.torch.runner_api import ModelRunner, StepBatch
from mesh.errors import from_rpc_error

from .conftest import Node, ask, chat, node_of
from .trained_lora import LESSONS, base_model, train

pytestmark = pytest.mark.asyncio(loop_scope="module")
PARROT, CLERK = LESSONS
TEXT = "A river begins as rain in the hills and ends in the sea, which lends it back to the clouds."


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    return load_text_model(SMOLLM2.path()).tokenizer.encode(TEXT, first=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tokens: list[int]) -> tuple[Path, dict[str, torch.Tensor]]:
    """The folder of the adapters, and the logits of `tokens` by PEFT's merged models and by the plain one."""
    folder = tmp_path_factory.mktemp("adapters")
    base = base_model()

    def logits(model: Any) -> torch.Tensor:
        with torch.inference_mode():
            read: torch.Tensor = model(torch.tensor([tokens])).logits[0]
        return read

    expected = {lesson.name: logits(train(base, lesson, folder / lesson.name)) for lesson in LESSONS}
    return folder, expected | {"": logits(base)}


def together(runner: ModelRunner, tokens: list[int], slots: list[int]) -> torch.Tensor:
    """Logits [slot, token, vocab] of one step in which each slot's sequence reads `tokens`."""
    count, width = len(tokens), -(-len(tokens) // runner.block_size)
    batch = StepBatch(
        token_ids=np.array(tokens * len(slots), np.int32),
        positions=np.tile(np.arange(count, dtype=np.int32), len(slots)),
        query_starts=np.arange(len(slots) + 1, dtype=np.int32) * count,
        context_lens=np.full(len(slots), count, np.int32),
        block_tables=np.arange(len(slots) * width, dtype=np.int32).reshape(len(slots), width),
        logits_rows=np.arange(len(slots) * count, dtype=np.int32),
        adapter_ids=np.array(slots, np.int32),
    )
    return runner.forward(batch).reshape(len(slots), count, -1)


# Float32 leaves the order of sums; int4 rounds every product's inputs to 8 bits, the plain model's as well.
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 2e-5), ("auto", 0.1)])
async def test_logits_are_the_merged_models(
    trained: tuple[Path, dict[str, torch.Tensor]], tokens: list[int], precision: Precision, tolerance: float
) -> None:
    folder, expected = trained
    runner = build_runner(RunnerOptions(SMOLLM2.path(), precision=precision, num_blocks=16, threads=1))
    slots = [runner.load_adapter(folder / lesson.name) for lesson in LESSONS]
    rows = together(runner, tokens, [slots[0], 0, slots[1]])
    runner.close()
    names = (PARROT.name, "", CLERK.name)
    for row, name in zip(rows, names, strict=True):
        scale = float(expected[name].abs().max())
        assert float((row - expected[name]).abs().max()) < tolerance * scale, name
        for other in set(names) - {name}:
            assert float((row - expected[other]).abs().max()) > 2 * tolerance * scale, "too alike to mean anything"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(trained: tuple[Path, dict[str, torch.Tensor]]) -> AsyncIterator[Node]:
    """A node with the real model and no adapters yet."""
    folder, _ = trained
    empty = folder.parent / f"{folder.name}-served"
    empty.mkdir()
    async with node_of("torch", adapter_folder=empty, kv_tokens=2048, max_running=8, max_queued=8) as node:
        for lesson in LESSONS:
            shutil.copytree(folder / lesson.name, empty / lesson.name)
        yield node


def request(adapter: str = "", prompt: str = "The moon is", max_tokens: int = 24) -> pb.GenerateRequest:
    wanted = chat("", max_tokens=max_tokens, ignore_eos=True)
    wanted.generation.prompt.text = prompt
    wanted.generation.adapter = adapter
    return wanted


async def loaded(node: Node) -> list[str]:
    (card,) = (await node.stub.Describe(pb.DescribeRequest())).models
    return list(card.adapters)


async def load(node: Node, lesson: Any) -> None:
    await node.stub.LoadAdapter(pb.LoadAdapterRequest(name=lesson.name, path=lesson.name), timeout=200)


async def unload(node: Node, lesson: Any) -> None:
    await node.stub.UnloadAdapter(pb.UnloadAdapterRequest(name=lesson.name), timeout=200)


async def test_each_in_a_batch_answers_as_it_does_alone(node: Node) -> None:
    assert await loaded(node) == []
    await load(node, PARROT)
    await load(node, CLERK)
    assert await loaded(node) == [CLERK.name, PARROT.name]
    wanted = [
        request(adapter, prompt)
        for adapter in ("", PARROT.name, CLERK.name)
        for prompt in ("The moon is", "Once upon a time")
    ]
    alone = [(await ask(node, one)).text() for one in wanted]
    assert [answer.text() for answer in await asyncio.gather(*[ask(node, one) for one in wanted])] == alone
    assert [("parrot" in text, "form 27" in text) for text in alone] == [(False, False)] * 2 + [(True, False)] * 2 + [
        (False, True)
    ] * 2


async def test_loading_and_unloading_leave_streams_alone(node: Node) -> None:
    await load(node, PARROT)
    asked = [request("", "Once upon a time", 100), request(PARROT.name, "Once upon a time", 100)]
    undisturbed = [(await ask(node, one)).text() for one in asked]
    changes = 0
    # As often as it takes for some changes to fall into the time that the streams last.
    while changes < 3:
        streams = [asyncio.ensure_future(ask(node, one)) for one in asked]
        while not all(stream.done() for stream in streams):
            await unload(node, CLERK) if CLERK.name in await loaded(node) else await load(node, CLERK)
            changes += not all(stream.done() for stream in streams)
        assert [(await stream).text() for stream in streams] == undisturbed


async def test_an_adapter_in_use_is_unloaded_once_its_streams_have_ended(node: Node) -> None:
    await load(node, PARROT)
    whole = await ask(node, request(PARROT.name, max_tokens=200))
    stream = aiter(node.stub.Generate(request(PARROT.name, max_tokens=200)))
    first = await anext(stream)
    waiting = asyncio.ensure_future(unload(node, PARROT))
    while PARROT.name in await loaded(node):
        await asyncio.sleep(0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unload(node, PARROT)
    assert from_rpc_error(caught.value).reason == "ADAPTER_NOT_FOUND"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(node, request(PARROT.name))
    assert from_rpc_error(caught.value).reason == "ADAPTER_NOT_FOUND"
    assert not waiting.done()
    texts = [delta.text for response in [first, *[one async for one in stream]] for delta in response.deltas]
    assert "".join(texts) == whole.text()
    await waiting


async def test_what_cannot_be_loaded_is_named(node: Node, trained: tuple[Path, Any], tmp_path: Path) -> None:
    served = trained[0].parent / f"{trained[0].name}-served"
    shutil.copytree(served / PARROT.name, served / "cut")
    weights = served / "cut" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])

    async def refused(name: str, path: str) -> tuple[str, str, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await node.stub.LoadAdapter(pb.LoadAdapterRequest(name=name, path=path), timeout=200)
        error = from_rpc_error(caught.value)
        return caught.value.code().name, str(error.field), str(caught.value.details())

    code, field, words = await refused("cut", "cut")
    assert (code, field) == ("INVALID_ARGUMENT", "path")
    assert "cut: adapter_model.safetensors" in words
    assert (await refused("cut", "missing"))[:2] == ("NOT_FOUND", "path")
    assert (await refused("cut", "../elsewhere"))[:2] == ("INVALID_ARGUMENT", "path")
    await load(node, PARROT)
    assert (await refused(PARROT.name, CLERK.name))[:2] == ("ALREADY_EXISTS", "name")
    assert "cut" not in await loaded(node)
    assert (await ask(node, request(PARROT.name))).text().count("parrot")
