"""What is said to llama.cpp, and what is made of its answers."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.adapters.llamacpp.job import Ended, Job, Pulse
from inference.adapters.llamacpp.lost_tokens import LostTokens
from inference.adapters.llamacpp.schema import SchemaError, parse_schema
from inference.adapters.llamacpp.wire import encode_request
from inference.core.port import ContextTooLong, EngineDelta, EngineRequest, Finish, SamplingParams
from inference.core.running_confidence import RunningConfidence

# Ids 0 to 255 are bytes, 256 is the end of text, 257 a part of an emoji.
PART = "🌊".encode()[:3]


def token_bytes(token: int) -> bytes:
    return bytes([token]) if token < 256 else {256: b"", 257: PART}[token]


def request(emitted: tuple[tuple[int, ...], ...] = (), **sampling: object) -> EngineRequest:
    return EngineRequest("r", (1, 2, 3), SamplingParams(max_tokens=10, **sampling), emitted=emitted)  # type: ignore[arg-type]  # test values


def test_a_resumed_choice_continues_after_what_was_emitted() -> None:
    body = json.loads(encode_request(request(emitted=((7, 8),)), 0))
    assert body["prompt"] == [1, 2, 3, 7, 8]
    assert body["max_tokens"] == 8


def test_choices_draw_from_seeds_of_their_own_below_the_word_for_any() -> None:
    seeds = [json.loads(encode_request(request(seed=2**64 - 1), i))["seed"] for i in range(3)]
    assert len(set(seeds)) == 3
    assert all(0 <= seed < 2**32 - 1 for seed in seeds)
    assert json.loads(encode_request(request(), 0))["seed"] == 2**32 - 1


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ("nonsense", "not JSON"),
        ("[]", "not an object"),
        ('{"type": "banana"}', "#/type"),
        ('{"properties": {"a": {"pattern": "x"}}}', "#/properties/a/pattern"),
        ('{"anyOf": [{"type": "string"}, {"not": {}}]}', "#/anyOf/1/not"),
        ('{"$ref": "#/$defs/gone"}', "#/\\$ref"),
        ('{"items": 3}', "#/items"),
        ('{"maxItems": -1}', "#/maxItems"),
    ],
)
def test_a_schema_that_is_not_kept_is_refused_by_place(schema: str, place: str) -> None:
    with pytest.raises(SchemaError, match=place):
        parse_schema(schema)


@pytest.mark.parametrize(
    "schema", ['{"$ref": "#"}', '{"anyOf": [{"$ref": "#"}]}', '{"type": "integer", "minimum": 2, "maximum": 1}']
)
def test_a_schema_that_nothing_satisfies_is_refused(schema: str) -> None:
    with pytest.raises(SchemaError, match=r"leads back to itself|no number"):
        parse_schema(schema)


def test_annotations_restrict_nothing() -> None:
    made = (
        '{"type": "integer", "x-a": 1, "format": "int32", "markdownDescription": "b", "readOnly": true, "example": 3}'
    )
    assert parse_schema(made) == json.loads(made)


def test_a_schema_may_not_be_endless() -> None:
    with pytest.raises(SchemaError, match="deeper"):
        parse_schema('{"items":' * 80 + "{}" + "}" * 80)


@given(st.lists(st.sampled_from([*b"abc", 257]), min_size=1, max_size=3))
def test_lost_tokens_spell_the_bytes_and_keep_the_count(tokens: list[int]) -> None:
    lost = LostTokens(258, token_bytes)
    raw = b"".join(map(token_bytes, tokens))
    found = lost.find(raw, len(tokens))
    assert found is not None
    assert len(found) == len(tokens)
    assert b"".join(map(token_bytes, found)) == raw
    assert lost.find(b"\xff\xff\xff", 5) is None


class ScriptedServer:
    """Calls back with what it was given, as xllamacpp does."""

    def __init__(self, *chunks: dict[str, object]) -> None:
        self.chunks = chunks
        self.sent = 0

    def handle_completions(self, _body: bytes, callback: object) -> None:
        for chunk in self.chunks:
            self.sent += 1
            if callback(msgspec.json.encode(chunk)):  # type: ignore[operator]  # a function
                return


def chunk(text: str, count: int, *ids: int, finish: str | None = None) -> dict[str, object]:
    drawn = [{"id": i, "logprob": -0.5, "top_logprobs": [{"id": i, "logprob": -0.5}]} for i in ids]
    part = {"text": text, "logprobs": {"content": drawn} if ids else None, "finish_reason": finish}
    return {"choices": [part], "timings": {"predicted_n": count}}


def run(*chunks: dict[str, object]) -> tuple[list[EngineDelta], Ended]:
    events: list[EngineDelta | Ended] = []
    Job(0, None, token_bytes, LostTokens(258, token_bytes), events.append, pulse=Pulse()).run(
        ScriptedServer(*chunks), b""
    )
    assert isinstance(events[-1], Ended)
    return [event for event in events if isinstance(event, EngineDelta)], events[-1]


def test_the_end_of_text_token_is_not_given_out() -> None:
    deltas, ended = run(chunk("a", 1, 97), chunk("", 2, 256), chunk("", 2, finish="stop"))
    assert [delta.tokens for delta in deltas] == [(97,), ()]
    assert deltas[-1].finish is Finish.STOP
    assert ended.tokens == 1


def test_at_the_length_limit_a_control_token_counts() -> None:
    deltas, ended = run(chunk("", 1, 256), chunk("", 1, finish="length"))
    assert deltas[-1].tokens == (256,)
    assert deltas[-1].finish is Finish.LENGTH
    assert ended.tokens == 1


def test_tokens_of_a_character_that_were_not_reported_are_found() -> None:
    last = "🌊".encode()[3]
    deltas, _ = run(chunk("x🌊", 3, last), chunk("", 3, finish="length"))
    assert deltas[0].tokens == (ord("x"), 257, last)


def test_an_error_ends_the_choice() -> None:
    _, ended = run({"error": {"code": 400, "message": "request exceeds the available context size"}})
    assert isinstance(ended.error, ContextTooLong)
    _, ended = run({"choices": [{"logprobs": {"content": [{"id": "?"}]}}]})
    assert ended.error is not None


def test_a_cancelled_job_stops_at_the_next_event() -> None:
    server = ScriptedServer(*[chunk("a", i, 97) for i in range(1, 50)])
    events: list[EngineDelta | Ended] = []

    def cancel_after_two(event: EngineDelta | Ended) -> None:
        events.append(event)
        job.cancelled = len(events) >= 2

    job = Job(0, None, token_bytes, LostTokens(258, token_bytes), cancel_after_two, pulse=Pulse())
    job.run(server, b"")
    assert server.sent == 3


def test_confidence_sums_up_what_was_drawn() -> None:
    running = RunningConfidence()
    assert running.result() is None
    running.add(-0.1, [-0.1, -3.0])
    running.add(-2.0, [-0.7, -2.0])
    result = running.result()
    assert result is not None
    assert result.mean_logprob == pytest.approx(-1.05)
    assert result.min_logprob == -2.0
    assert result.tokens == 2
    assert 0 < result.mean_margin < 1
    assert result.mean_entropy > 0
