"""A node with the torch engine and SmolLM2: usage, alternatives, and what is said while a prompt is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from headrace.common.v1 import generation_pb2

from .conftest import Node, ask, chat, node_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
Progress = generation_pb2.GenerationProgress


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[Node]:
    async with node_of("torch", max_running=8) as running:
        yield running


async def test_usage_is_what_was_given_where_some_choices_stop_early(node: Node) -> None:
    question = chat("Tell me something about rivers.", n=3, max_tokens=60, temperature=1.0, seed=7, stop=["."])
    answer = await ask(node, question)
    given = [len(answer.tokens(index)) for index in range(3)]
    assert len(set(given)) > 1, "they do not end together"
    assert min(given) < 60
    assert answer.summary.usage.completion_tokens == sum(given)


@pytest.mark.parametrize("sampling", [{"temperature": 2.0, "seed": 5}, {"logit_bias": {500: 100.0}}])
async def test_a_drawn_token_is_among_its_alternatives(node: Node, sampling: dict[str, object]) -> None:
    answer = await ask(node, chat("Say anything.", max_tokens=24, logprobs=True, top_logprobs=2, **sampling))
    unlikely = 0
    for entry in answer.logprobs():
        ranked = [(other.token_id, other.logprob) for other in entry.top]
        assert (entry.token_id, pytest.approx(entry.logprob)) in ranked
        assert [logprob for _, logprob in ranked] == sorted((logprob for _, logprob in ranked), reverse=True)
        assert len(ranked) in (2, 3)
        unlikely += len(ranked) == 3
    assert unlikely


async def test_a_prompt_that_is_read_says_how_far(node: Node) -> None:
    """Beside another one of its length, so that neither is read at once."""
    questions = [chat(f"{word} " * 1500, max_tokens=2) for word in ("river", "stone")]
    for answer in await asyncio.gather(*(ask(node, question) for question in questions)):
        said = [response.progress for response in answer.responses if response.HasField("progress")]
        first = next(i for i, response in enumerate(answer.responses) if response.deltas)
        assert len(said) == first, "it is said before the first delta, and alone"
        shares = [progress.prompt_read for progress in said if progress.stage == Progress.STAGE_PREFILL]
        assert shares
        assert shares == sorted(shares)
        assert 0.0 <= shares[0] <= shares[-1] <= 1.0
