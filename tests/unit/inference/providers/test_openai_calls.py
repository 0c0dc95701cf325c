"""Calls as OpenAI-compatible servers write them, each in its own way."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.common.v1 import generation_pb2 as pb
from inference.core.answer import merge
from inference.core.providers.call_ids import FreshIds
from inference.core.providers.openai_response import OpenAIReader
from inference.core.providers.sse import SseEvent
from mesh.errors import MeshError

Piece = dict[str, Any]
Wanted = list[tuple[str, str]]


def read(*chunks: list[Piece] | Piece, finish: str = "tool_calls") -> pb.ChoiceDelta:
    """The whole answer; a chunk is a list of pieces of calls, or a delta."""
    reader = OpenAIReader(1, FreshIds("r"))
    deltas: list[pb.ChoiceDelta] = []
    entries: list[Piece] = [{"delta": {"tool_calls": one} if isinstance(one, list) else one} for one in chunks]
    for entry in [*entries, {"delta": {}, "finish_reason": finish}]:
        deltas += reader.take(SseEvent("", json.dumps({"choices": [entry]})))
    reader.take(SseEvent("", "[DONE]"))
    (whole,) = merge(deltas + reader.end()[0])
    return whole


def calls(answer: pb.ChoiceDelta) -> Wanted:
    """Name and arguments of each call, in the order of their numbers."""
    assert [call.index for call in answer.tool_calls] == list(range(len(answer.tool_calls)))
    ids = [call.id for call in answer.tool_calls]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    return [(call.name, call.arguments_json) for call in answer.tool_calls]


def call(name: str | None, arguments: Any, **more: Any) -> Piece:
    """A piece of a call."""
    return more | {"function": {"name": name, "arguments": arguments}}


_A, _B, _C = ('{"s":"a"}', '{"s":"b"}', '{"s":"c"}')
_THREE = [("f", _A), ("f", _B), ("f", _C)]
_WAYS: dict[str, tuple[tuple[list[Piece] | Piece, ...], Wanted]] = {
    "no index, in three chunks": (tuple([call("f", a, id=i)] for i, (_, a) in zip("abc", _THREE, strict=True)), _THREE),
    "no index, in one chunk": (([call("f", a, id=i) for i, (_, a) in zip("abc", _THREE, strict=True)],), _THREE),
    "null as the index": (
        tuple([call("f", a, id=i, index=None)] for i, (_, a) in zip("abc", _THREE, strict=True)),
        _THREE,
    ),
    "index 0 for all": (tuple([call("f", a, id=i, index=0)] for i, (_, a) in zip("abc", _THREE, strict=True)), _THREE),
    "index 0 for all, in pieces": (
        (
            [call("f", "", id="a", index=0)],
            [call(None, '{"s":', index=0)],
            [call(None, '"a"}', index=0)],
            [call("f", "", id="b", index=0)],
            [call(None, '{"s":', index=0)],
            [call(None, '"b"}', index=0)],
        ),
        _THREE[:2],
    ),
    "indexes from 1": (
        tuple([call("f", a, id=i, index=n + 1)] for n, (i, (_, a)) in enumerate(zip("abc", _THREE, strict=True))),
        _THREE,
    ),
    "index as 1.0": (tuple([call("f", a, index=float(n))] for n, (_, a) in enumerate(_THREE)), _THREE),
    "id and name in each piece": (
        tuple([call("f", part, id="a", index=0)] for part in ("", '{"s":', '"a"', "}", "")),
        _THREE[:1],
    ),
    "id and name in each piece, no index": (
        tuple([call("f", part, id=i)] for i in "ab" for part in ("", '{"s":', f'"{i}"', "}")),
        _THREE[:2],
    ),
    "a new id in each piece": (
        (
            [call("f", "", id="x1", index=0)],
            [call(None, '{"s":', id="x2", index=0)],
            [call(None, '"a"}', id="x3", index=0)],
        ),
        _THREE[:1],
    ),
    "no id": (([call("f", _A, index=0)], [call("f", _B, index=1)]), _THREE[:2]),
    "no id and no index": (([call("f", _A)], [call("f", _B)], [call("f", _C)]), _THREE),
    "no id, index 0 for all": (
        (
            [call("f", '{"s":', index=0)],
            [call(None, '"a"}', index=0)],
            [call("f", "", index=0)],
            [call(None, _B, index=0)],
        ),
        _THREE[:2],
    ),
    "no id, the name in each piece": (
        tuple([call("f", part, index=0)] for part in ('{"s":', '"a"', "}", "")),
        _THREE[:1],
    ),
    "an empty id in later pieces": (
        ([call("f", '{"s":', id="a", index=0)], [call("", '"a"}', id="", index=0)]),
        _THREE[:1],
    ),
    "one id for all": (tuple([call("f", a, id="x", index=n)] for n, (_, a) in enumerate(_THREE)), _THREE),
    "one id and one index for all": (tuple([call("f", a, id="x", index=0)] for _, a in _THREE), _THREE),
    "between each other": (
        (
            [call("f", "", id="a"), call("g", "", id="b")],
            [call(None, '{"s":', id="a")],
            [call(None, '{"s":', id="b")],
            [call(None, '"a"}', id="a")],
            [call(None, '"b"}', id="b")],
        ),
        [("f", _A), ("g", _B)],
    ),
    "the id before the name": (
        ([{"index": 0, "id": "a"}], [call("f", None, index=0)], [call(None, _A, index=0)]),
        _THREE[:1],
    ),
    "the name in two pieces": (
        ([call("wea", None, id="a", index=0)], [call("ther", None, index=0)], [call(None, _A, index=0)]),
        [("weather", _A)],
    ),
    "an object as arguments": (([call("f", {"s": "a"}, id="a", index=0)],), _THREE[:1]),
    "no arguments": (
        ([call("f", None, id="a", index=0)], [call("g", "", id="b", index=1)]),
        [("f", "{}"), ("g", "{}")],
    ),
    "the older form": (
        ({"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": _A}}),
        _THREE[:1],
    ),
}


@pytest.mark.parametrize(("chunks", "wanted"), _WAYS.values(), ids=_WAYS.keys())
def test_distinct_calls_stay_distinct(chunks: tuple[list[Piece] | Piece, ...], wanted: Wanted) -> None:
    """Numbered from 0, each with an id, a name said once, and its own arguments."""
    assert calls(read(*chunks)) == wanted


@given(
    wanted=st.lists(
        st.tuples(
            st.sampled_from(["f", "g", "weather"]),
            st.dictionaries(st.text(max_size=4), st.text(max_size=6), min_size=1, max_size=3).map(json.dumps),
        ),
        min_size=1,
        max_size=5,
    ),
    with_index=st.sampled_from(["none", "zero", "counted", "from 1"]),
    with_id=st.sampled_from(["once", "always"]),
    with_name=st.sampled_from(["once", "always"]),
    cuts=st.lists(st.integers(0, 40), max_size=6),
)
def test_any_way_of_writing_calls_reads_alike(
    wanted: Wanted, with_index: str, with_id: str, with_name: str, cuts: list[int]
) -> None:
    """Whatever a server leaves out or repeats, and wherever it cuts the arguments, quotes and escapes included."""
    chunks = []
    for number, (name, arguments) in enumerate(wanted):
        places = sorted({0, len(arguments), *(cut % len(arguments) for cut in cuts)})
        for first, (start, end) in enumerate(itertools.pairwise(places)):
            piece = call(name if not first or with_name == "always" else None, arguments[start:end])
            if with_index != "none":
                piece["index"] = {"zero": 0, "counted": number, "from 1": number + 1}[with_index]
            if not first or with_id == "always":
                piece["id"] = f"id{number}"
            chunks.append([piece])
    assert calls(read(*chunks)) == wanted


def test_the_finish_reason_follows_the_calls() -> None:
    """`stop` beside calls means them, `tool_calls` without any does not, and a cut answer stays one."""
    piece = [call("f", _A, id="a", index=0)]
    assert read(piece, finish="stop").finish_reason == pb.FINISH_REASON_TOOL_CALLS
    assert read({"content": "hi"}, finish="tool_calls").finish_reason == pb.FINISH_REASON_STOP
    assert read({"content": "hi"}, finish="function_call").finish_reason == pb.FINISH_REASON_STOP
    cut = read([call("f", None, id="a", index=0)], finish="length")
    assert (cut.finish_reason, cut.tool_calls[0].arguments_json) == (pb.FINISH_REASON_LENGTH, "")


@pytest.mark.parametrize("chunks", [[[call(None, _A, index=0)]], [[call("f", _A, id=str(i))] for i in range(300)]])
def test_what_is_no_call_is_the_providers_fault(chunks: list[list[Piece]]) -> None:
    """A call without a name, and calls without end."""
    with pytest.raises(MeshError) as caught:
        read(*chunks)
    assert caught.value.reason == "PROVIDER_MALFORMED"
