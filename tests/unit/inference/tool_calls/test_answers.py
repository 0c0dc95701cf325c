"""Answers with calls: deltas, ids, finish reasons, stop strings, and going on where another node stopped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.common.v1 import generation_pb2 as pb
from inference.core.answer import Answer, ResumeMismatch, merge
from inference.core.port import EngineDelta, EngineRequest, Finish, SamplingParams
from inference.core.requests import TextRequest
from inference.core.tool_calls.formats import HERMES, MISTRAL, Format
from inference.core.tool_calls.prompting import written

CALLS = (("weather", '{"city": "Tromsø"}'), ("time", "{}"))
WHOLE = "Let me see. " + written(CALLS, HERMES)
PROMPT = (1, 2, 3)


def asked(
    form: Format | None = HERMES,
    *,
    n: int = 1,
    stops: tuple[str, ...] = (),
    emitted: tuple[tuple[tuple[int, ...], str], ...] = (),
    request_id: str = "r",
    prompt: tuple[int, ...] = PROMPT,
    only_calls: bool = False,
) -> TextRequest:
    tokens = tuple(tokens for tokens, _ in emitted)
    request = EngineRequest(request_id, prompt, SamplingParams(max_tokens=999), n, tokens)
    return TextRequest(request, stops, tuple(text for _, text in emitted) or ("",) * n, form, only_calls)


def answer_to(request: TextRequest) -> Answer:
    """Tokens are bytes."""
    return Answer(request, lambda token: bytes([token]))


def deltas(
    answer: Answer, text: str, finish: Finish = Finish.STOP, index: int = 0, size: int = 1
) -> list[pb.ChoiceDelta]:
    raw = text.encode()
    steps = [tuple(raw[at : at + size]) for at in range(0, len(raw), size)]
    taken = [answer.take(EngineDelta(index, step)) for step in steps]
    taken.append(answer.take(EngineDelta(index, (), finish=finish)))
    return [delta for delta in taken if delta is not None]


def put_together(gained: list[pb.ChoiceDelta]) -> tuple[str, list[tuple[str, str, str]], int]:
    """The text, each call's id, name and arguments, and the finish reason."""
    calls: dict[int, list[str]] = {}
    for delta in gained:
        for piece in delta.tool_calls:
            one = calls.setdefault(piece.index, ["", "", ""])
            one[0] += piece.id
            one[1] += piece.name
            one[2] += piece.arguments_json
    (finish,) = [delta.finish_reason for delta in gained if delta.finish_reason]
    return "".join(delta.text for delta in gained), [(a, b, c) for a, b, c in calls.values()], finish


def test_an_answer_with_calls_is_text_then_calls() -> None:
    text, calls, finish = put_together(deltas(answer_to(asked()), WHOLE))
    assert text == "Let me see. "
    assert [(name, arguments) for _, name, arguments in calls] == list(CALLS)
    assert finish == pb.FINISH_REASON_TOOL_CALLS
    assert len({call_id for call_id, _, _ in calls}) == 2
    assert all(call_id.startswith("call_") and len(call_id) == 29 for call_id, _, _ in calls)


def test_every_token_is_told_whether_it_gave_something_or_not() -> None:
    gained = deltas(answer_to(asked()), WHOLE, size=3)
    assert [token for delta in gained for token in delta.token_ids] == list(WHOLE.encode())


def test_text_alone_ends_as_ever() -> None:
    assert put_together(deltas(answer_to(asked()), "No <tool")) == ("No <tool", [], pb.FINISH_REASON_STOP)
    assert put_together(deltas(answer_to(asked(None)), WHOLE))[0] == WHOLE


@pytest.mark.parametrize("end", [len("Let me see. <tool_call>"), len(WHOLE.encode()) - 30, len(WHOLE.encode())])
def test_an_answer_that_was_cut_short_says_length(end: int) -> None:
    text, _, finish = put_together(deltas(answer_to(asked()), WHOLE.encode()[:end].decode(), Finish.LENGTH))
    assert (text, finish) == ("Let me see. ", pb.FINISH_REASON_LENGTH)


@pytest.mark.parametrize("end", range(1, len(HERMES.trigger)))
def test_the_beginning_of_a_call_that_was_cut_is_no_text(end: int) -> None:
    begun = HERMES.trigger[:end]
    text, calls, finish = put_together(deltas(answer_to(asked(only_calls=True)), begun, Finish.LENGTH))
    assert (text, calls, finish) == ("", [], pb.FINISH_REASON_LENGTH)
    text, _, _ = put_together(deltas(answer_to(asked()), f"See {begun}", Finish.LENGTH))
    assert text == ("See <" if end == 1 else "See ")
    text, _, _ = put_together(deltas(answer_to(asked()), f"See {begun}", Finish.STOP))
    assert text == f"See {begun}"


def test_stop_strings_end_text_and_no_call() -> None:
    text, calls, finish = put_together(deltas(answer_to(asked(stops=("see",))), WHOLE))
    assert (text, calls, finish) == ("Let me ", [], pb.FINISH_REASON_STOP)
    # Held back for its beginning, and given out before the calls.
    text, calls, finish = put_together(deltas(answer_to(asked(stops=("Oslo", "city", " <", '"}'))), WHOLE))
    assert (text, finish) == ("Let me see. ", pb.FINISH_REASON_TOOL_CALLS)
    assert [(name, arguments) for _, name, arguments in calls] == list(CALLS)


def test_ids_are_of_the_request_its_choice_and_its_call() -> None:
    def ids(request: TextRequest, index: int = 0) -> list[str]:
        return [call_id for call_id, _, _ in put_together(deltas(answer_to(request), WHOLE, index=index))[1]]

    assert ids(asked()) == ids(asked())
    others = [ids(asked(n=2), 1), ids(asked(request_id="s")), ids(asked(prompt=(1, 2, 4)))]
    assert len({call_id for each in (ids(asked()), *others) for call_id in each}) == 8
    spelt = written(CALLS, MISTRAL)
    call_id = put_together(deltas(answer_to(asked(MISTRAL)), spelt))[1][0][0]
    assert len(call_id) == 9
    assert call_id.isalnum()


@given(st.integers(0, len(WHOLE.encode())), st.lists(st.integers(1, 6), max_size=40))
def test_going_on_anywhere_gives_what_was_missing_and_nothing_twice(at: int, sizes: list[int]) -> None:
    raw = WHOLE.encode()
    before, taken, start = answer_to(asked()), [], 0
    for size in [*sizes, len(raw)]:
        end = min(start + size, at)
        taken.append(before.take(EngineDelta(0, tuple(raw[start:end]))))
        start = end
    had = [delta for delta in taken if delta is not None]
    text = "".join(delta.text for delta in had)
    after = answer_to(asked(emitted=((tuple(raw[:at]), text),)))
    assert after.ended_before == []
    rest = [after.take(EngineDelta(0, tuple(raw[at:]))), after.take(EngineDelta(0, (), finish=Finish.STOP))]
    joined = [*had, *(delta for delta in rest if delta is not None)]
    assert put_together(joined) == put_together(deltas(answer_to(asked()), WHOLE))


def test_text_that_the_tokens_did_not_give_is_refused() -> None:
    with pytest.raises(ResumeMismatch):
        answer_to(asked(emitted=((tuple(WHOLE.encode()), "Let me see. <tool_call>"),)))


def test_pieces_of_one_call_are_one_in_every_message() -> None:
    gained = deltas(answer_to(asked()), WHOLE, size=4)
    (merged,) = merge(gained)
    assert [(piece.index, piece.name, piece.arguments_json) for piece in merged.tool_calls] == [
        (0, *CALLS[0]),
        (1, *CALLS[1]),
    ]
    assert all(piece.id for piece in merged.tool_calls)
    whole = answer_to(asked()).take(EngineDelta(0, tuple(WHOLE.encode())))
    assert whole is not None
    assert whole.tool_calls == merged.tool_calls
