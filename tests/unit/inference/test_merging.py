"""Deltas that wait for a writer are merged: nothing of them may be lost, whatever fields a delta comes to have."""

from headrace.common.v1 import generation_pb2 as pb
from inference.core.answer import merge


def strings() -> list[str]:
    fields = pb.ChoiceDelta.DESCRIPTOR.fields
    return [field.name for field in fields if field.type == field.TYPE_STRING and not field.is_repeated]


def lists() -> list[str]:
    return [field.name for field in pb.ChoiceDelta.DESCRIPTOR.fields if field.is_repeated]


def test_every_text_of_a_delta_is_appended() -> None:
    assert {"text", "refusal"} <= set(strings())
    deltas = [pb.ChoiceDelta(index=0, **dict.fromkeys(strings(), piece)) for piece in ("I'm ", "sorry, ", "no.")]
    (merged,) = merge(deltas)
    assert {name: getattr(merged, name) for name in strings()} == dict.fromkeys(strings(), "I'm sorry, no.")


def test_every_list_of_a_delta_is_appended_and_its_end_stays() -> None:
    first = pb.ChoiceDelta(index=1, token_ids=[1], finish_reason=0)
    first.logprobs.add(token_id=1)
    first.tool_calls.add(index=0, id="a", name="f", arguments_json="{")
    second = pb.ChoiceDelta(index=1, token_ids=[2], finish_reason=pb.FINISH_REASON_STOP)
    second.logprobs.add(token_id=2)
    second.tool_calls.add(index=1, id="b", name="g", arguments_json="{}")
    second.confidence.mean_logprob = -1
    (merged,) = merge([first, second])
    assert {name: len(getattr(merged, name)) for name in lists()} == dict.fromkeys(lists(), 2)
    assert (merged.finish_reason, merged.confidence.mean_logprob) == (pb.FINISH_REASON_STOP, -1)


def test_choices_stay_apart() -> None:
    deltas = [pb.ChoiceDelta(index=i % 2, refusal=str(i)) for i in range(4)]
    assert [(delta.index, delta.refusal) for delta in merge(deltas)] == [(0, "02"), (1, "13")]
