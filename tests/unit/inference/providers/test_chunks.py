"""What providers write in an unusual way, read as they mean it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.common.v1 import generation_pb2 as pb
from inference.core.answer import merge
from inference.core.providers.anthropic_response import AnthropicReader
from inference.core.providers.call_ids import FreshIds
from inference.core.providers.chunks import BadChunk, count
from inference.core.providers.dialect import Reader
from inference.core.providers.failures import Malformed
from inference.core.providers.gemini_response import GeminiReader
from inference.core.providers.halves import Halves, whole
from inference.core.providers.openai_response import OpenAIReader
from inference.core.providers.sse import SseEvent

_GLOBE = "\U0001f30d"
_HIGH, _LOW = _GLOBE.encode("utf-16-be")[:2], _GLOBE.encode("utf-16-be")[2:]
_KINDS = ("openai", "anthropic", "gemini")


def _reader(kind: str) -> Reader:
    ids = FreshIds("r")
    return {"openai": OpenAIReader(1, ids), "anthropic": AnthropicReader(), "gemini": GeminiReader(1, ids)}[kind]


def _text(kind: str, escaped: str) -> str:
    """A piece of text, with the escapes as they stand."""
    return {
        "openai": f'{{"choices":[{{"index":0.0,"delta":{{"content":"{escaped}"}}}}]}}',
        "anthropic": f'{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{escaped}"}}}}',
        "gemini": f'{{"candidates":[{{"content":{{"parts":[{{"text":"{escaped}"}}]}}}}]}}',
    }[kind]


def _end(kind: str, tokens: Any) -> tuple[str, ...]:
    events: dict[str, tuple[Any, ...]] = {
        "openai": (
            {"choices": [{"delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": tokens, "completion_tokens": tokens}},
        ),
        "anthropic": (
            {"type": "message_start", "message": {"usage": {"input_tokens": tokens}}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": tokens}},
            {"type": "message_stop"},
        ),
        "gemini": (
            {
                "candidates": [{"finishReason": "STOP"}],
                "usageMetadata": {"promptTokenCount": tokens, "candidatesTokenCount": tokens},
            },
        ),
    }
    return tuple(json.dumps(event) for event in events[kind]) + (("[DONE]",) if kind == "openai" else ())


def _read(kind: str, *data: str, tokens: Any = 3) -> tuple[str, pb.Usage]:
    reader = _reader(kind)
    deltas: list[pb.ChoiceDelta] = []
    for one in (*data, *_end(kind, tokens)):
        deltas += reader.take(SseEvent("", one))
    last, summary = reader.end()
    (answer,) = merge([*deltas, *last])
    return answer.text, summary.usage


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (("a", "\\ud83c", "\\udf0db"), f"a{_GLOBE}b"),
        (("\\uD83C", "\\uDF0D"), _GLOBE),
        (("\\ud83c\\udf0d",), _GLOBE),
        (("\\ud83c", "x"), "\ufffdx"),
        (("x\\udf0d", "y"), "x\ufffdy"),
        (("x\\ud83c",), "x\ufffd"),
        (("\\ud83c", "\\ud83c\\udf0d"), f"\ufffd{_GLOBE}"),
    ],
)
def test_a_character_in_two_halves(kind: str, pieces: tuple[str, ...], text: str) -> None:
    """Joined where both come, U+FFFD where one does not; never an error."""
    assert _read(kind, *(_text(kind, piece) for piece in pieces))[0] == text


@given(st.text(st.characters(), max_size=12), st.lists(st.integers(0, 40), max_size=6))
def test_text_survives_being_cut_within_characters(text: str, cuts: list[int]) -> None:
    """Cut anywhere among the UTF-16 code units, as servers written in such languages do."""
    units = text.encode("utf-16-le", errors="surrogatepass").decode("utf-16-le", errors="replace")
    encoded = units.encode("utf-16-le")
    raw = [encoded[i : i + 2] for i in range(0, len(encoded), 2)]
    places = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    halves: Halves[int] = Halves()
    joined = "".join(
        halves.join(0, b"".join(raw[a:b]).decode("utf-16-le", errors="surrogatepass"))
        for a, b in itertools.pairwise(places)
    )
    assert joined == units
    assert halves.lost() == []


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    ("tokens", "means"), [(1.0, 1), (7, 7), ("5", 5), (None, 0), (-1, 0), (2**40, 2**31 - 1), ([], 0), (True, 0)]
)
def test_usage_in_any_number(kind: str, tokens: Any, means: int) -> None:
    """An odd figure never costs the answer."""
    text, usage = _read(kind, _text(kind, "hi"), tokens=tokens)
    assert (text, usage.completion_tokens) == ("hi", means)


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("data", ["{broken", "nonsense", "[" * 100_000, '{"choices": 7, "type": 7, "candidates": 7}'])
def test_a_chunk_that_says_nothing_of_the_answer(kind: str, data: str) -> None:
    """May be read over."""
    with pytest.raises(BadChunk):
        _reader(kind).take(SseEvent("", data))


@pytest.mark.parametrize("kind", _KINDS)
def test_a_chunk_with_a_part_of_the_answer_in_it_is_no_such_chunk(kind: str) -> None:
    """Text would be missing from the answer, and nobody would know."""
    cut = _text(kind, "lost words")[:-3]
    with pytest.raises(Malformed) as caught:
        _reader(kind).take(SseEvent("", cut))
    assert not isinstance(caught.value, BadChunk)


def test_log_probabilities_of_half_characters() -> None:
    """Their text is readable, and the message can be sent."""
    entry = r'{"token":"\ud83c","logprob":-1,"top_logprobs":[{"token":"\ud83c","logprob":-2}]}'
    chunk = f'{{"choices":[{{"delta":{{"content":"x"}},"logprobs":{{"content":[{entry}]}}}}]}}'
    (delta,) = OpenAIReader(1, FreshIds("r")).take(SseEvent("", chunk))
    assert (delta.logprobs[0].text, delta.logprobs[0].top[0].text) == ("\ufffd", "\ufffd")
    assert delta.SerializeToString()


def test_refusals_in_pieces_are_whole_when_merged() -> None:
    """As text is."""
    deltas = [pb.ChoiceDelta(refusal=text) for text in ("I'm ", "sorry, ", "no.")]
    deltas += [pb.ChoiceDelta(index=1, text="a"), pb.ChoiceDelta(finish_reason=pb.FINISH_REASON_STOP)]
    first, second = merge(deltas)
    assert (first.refusal, first.finish_reason) == ("I'm sorry, no.", pb.FINISH_REASON_STOP)
    assert (second.index, second.text, second.refusal) == (1, "a", "")


def test_counts_and_whole_texts() -> None:
    """The two smallest readers."""
    assert [count(value) for value in (3, 3.9, "4.0", "x", float("nan"), {})] == [3, 3, 4, 0, 0, 0]
    assert whole("\ud83c\udf0d") == _GLOBE
    assert whole("a\ud83cb") == "a\ufffdb"
