"""Completion requests: prompts in all their shapes, and what is refused."""

import json
from typing import Any

import pytest

from gateway.core.openai.api_requests import CompletionApiRequest
from mesh.errors import InvalidArgument


def question(**changes: Any) -> CompletionApiRequest:
    return CompletionApiRequest.decode(json.dumps({"model": "m", "prompt": "hi"} | changes).encode())


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [(1, 2)]),
        ([[1, 2], [3]], [(1, 2), (3,)]),
    ],
)
def test_prompts_come_in_four_shapes(prompt: Any, expected: list[Any]) -> None:
    prompts = [generation.prompt for generation in question(prompt=prompt).generations]
    assert [p.text if p.HasField("text") else tuple(p.tokens.token_ids) for p in prompts] == expected


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [2**31]}, "prompt[0]"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"echo": True, "logprobs": 1}, "logprobs"),
        ({"echo": True, "prompt": [1]}, "echo"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        question(**changes)
    assert caught.value.field == field


def test_defaults_are_openais() -> None:
    assert question().generations[0].sampling.max_tokens == 16
    assert question(max_tokens=5).generations[0].sampling.max_tokens == 5


def test_logprobs_are_counted_here() -> None:
    sampling = question(logprobs=0).generations[0].sampling
    assert (sampling.logprobs, sampling.top_logprobs) == (True, 0)
    assert question(logprobs=5, best_of=1, suffix=None).generations[0].sampling.top_logprobs == 5
