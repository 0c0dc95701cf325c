"""The estimate of a prompt's tokens beside a real tokenizer, for prose, code, data and scripts of other kinds."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.common.v1 import generation_pb2 as common
from headrace.router.v1 import router_pb2 as pb
from inference.adapters.model_files import SMOLLM2
from inference.adapters.tokenizer import load_text_model
from inference.core.text import TextModel
from router.core.token_estimate import tokens_in, tokens_of

ROOT = Path(__file__).parents[3]
ITEMS = [{"id": i, "name": f"item{i}", "price": i * 1.37, "tags": ["a", "b"]} for i in range(100)]
TEXTS = {
    "prose": (ROOT / "docs/architecture.md").read_text(),
    "code": (ROOT / "router/core/selector.py").read_text(),
    "markdown": (ROOT / "router/README.md").read_text(),
    "json": json.dumps(ITEMS),
    "indented": json.dumps(ITEMS, indent=8),
    "chinese": "人工智能是计算机科学的一个分支。它企图了解智能的实质。并生产出一种新的智能机器。" * 30,
    "japanese": "これはテストです。日本語の文章をトークンに分割すると、多くのトークンが必要になります。" * 30,
    "russian": "Это предложение написано по-русски, чтобы проверить оценку количества токенов. " * 30,
    "german": "Die Würde des Menschen ist unantastbar. Sie zu achten und zu schützen ist Verpflichtung. " * 30,
    "base64": base64.b64encode(bytes(range(256)) * 8).decode(),
    "log": "2026-11-28T22:14:17.123Z INFO router attempt.failed replica=n0 reason=FIRST_TOKEN_TIMEOUT\n" * 40,
    "spaces": " " * 4000,
    "rule": "-" * 4000,
    "emoji": "😀🎉 great 🚀" * 50,
}


@pytest.fixture(scope="module")
def tokenizer() -> TextModel:
    return load_text_model(SMOLLM2.path())


@pytest.mark.parametrize("name", TEXTS)
def test_it_is_about_right_for_every_kind_of_text(tokenizer: TextModel, name: str) -> None:
    real = len(tokenizer.encode_text(TEXTS[name]))
    assert 0.6 * real <= tokens_in([TEXTS[name]]) <= 1.5 * real


@given(st.lists(st.text(), max_size=5))
def test_any_text_has_an_estimate(texts: list[str]) -> None:
    assert 0 <= tokens_in(texts) <= 2 * sum(len(text) + 1 for text in texts)


def test_a_long_text_is_looked_at_in_parts() -> None:
    """Megabytes are estimated from a sample, and their beginning alone does not decide."""
    mixed = "word " * 800_000 + "智能" * 800_000
    assert tokens_in([mixed]) == pytest.approx(2_400_000, rel=0.2)


def test_an_answers_tokens_are_its_ids_or_else_an_estimate() -> None:
    delta = common.ChoiceDelta
    assert tokens_of(pb.GenerateResponse(deltas=[delta(token_ids=[1, 2], text="ab")])) == 2
    assert tokens_of(pb.GenerateResponse(deltas=[delta(text="a"), delta(text=" word")])) == 2
    assert tokens_of(pb.GenerateResponse(deltas=[delta(text="many words in one delta of a provider")])) == 9
    assert tokens_of(pb.GenerateResponse(deltas=[delta(text="智能机器")])) == 4
    call = common.ToolCallDelta(name="weather", arguments_json='{"city": "Paris"}')
    assert tokens_of(pb.GenerateResponse(deltas=[delta(tool_calls=[call])])) == 6
    assert tokens_of(pb.GenerateResponse(deltas=[delta(finish_reason=common.FINISH_REASON_STOP)])) == 0
