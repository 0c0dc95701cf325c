"""A cascade's features and decisions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.common.v1 import generation_pb2 as common
from headrace.router.v1 import router_pb2 as pb
from router.core import cascade
from router.core.calibration import Calibration, Logistic
from router.core.cascade_features import Answer, answer_features, prompt_features, repetition
from router.core.cascade_policy import answer_of

SURE = Logistic(bias=2.0, weights={"mean_logprob": 1.0})


@given(st.text(max_size=400), st.text(max_size=400), st.floats(), st.booleans(), st.booleans())
def test_features_are_finite_whatever_the_text(prompt, answer, logprob, wants_json, whole) -> None:
    features = prompt_features(prompt) | answer_features(
        Answer(answer, mean_logprob=logprob, wants_json=wants_json, whole=whole)
    )
    assert all(math.isfinite(v) for v in features.values())
    everything = Logistic(bias=0.0, weights=dict.fromkeys(features, 1.0))
    assert 0.0 <= everything.score(features) <= 1.0


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("I'm sorry, but I cannot help with that.", "refusal"),
        ("As an AI, I have no opinion.", "refusal"),
        ("", "empty"),
        ("not json", "invalid_format"),
    ],
)
def test_what_is_no_answer_is_seen(text, name) -> None:
    assert answer_features(Answer(text, wants_json=name == "invalid_format"))[name] == 1.0
    assert answer_features(Answer('{"a": 1}', wants_json=True))[name] == 0.0


def test_repetition_is_the_share_of_phrases_that_repeat() -> None:
    assert repetition("one two three four five six seven") == 0.0
    assert repetition("again and again and " * 20) > 0.9
    assert repetition("short") == 0.0


def test_the_beginning_of_an_answer_is_not_yet_bad_json() -> None:
    calibration = Calibration()
    assert not cascade.after("q", Answer('{"a": ', wants_json=True, whole=False), calibration).escalate
    assert cascade.after("q", Answer('{"a": ', wants_json=True, whole=True), calibration).escalate


def test_thresholds_decide_at_their_exact_value() -> None:
    calibration = Calibration(confidence=SURE, confidence_threshold=0.5)
    assert not cascade.after("q", Answer("a", mean_logprob=-2.0), calibration).escalate
    assert cascade.after("q", Answer("a", mean_logprob=-2.1), calibration).escalate
    hard = Calibration(difficulty=Logistic(bias=0.0, weights={}), difficulty_threshold=0.5)
    assert cascade.before("q", hard).escalate
    assert not cascade.before("q", Calibration()).escalate


def test_a_figure_that_a_node_does_not_give_counts_as_the_mean() -> None:
    model = Logistic(
        bias=1.0, weights={"mean_logprob": 3.0}, means={"mean_logprob": -0.7}, scales={"mean_logprob": 2.0}
    )
    assert model.score({}) == model.score({"mean_logprob": -0.7})


def test_an_answer_is_read_from_its_messages() -> None:
    one = common.ChoiceDelta(text="a", logprobs=[common.TokenLogprob(logprob=-1.0)])
    two = common.ChoiceDelta(text="b", logprobs=[common.TokenLogprob(logprob=-3.0)])
    other = common.ChoiceDelta(index=1, text="other choice")
    answer = answer_of([pb.GenerateResponse(deltas=[one, other]), pb.GenerateResponse(deltas=[two])], wants_json=False)
    assert (answer.text, answer.mean_logprob, answer.min_logprob, answer.whole) == ("ab", -2.0, -3.0, False)
    figures = common.Confidence(mean_logprob=-0.5, min_logprob=-0.9, mean_entropy=1.0, mean_margin=0.5, tokens=2)
    end = common.ChoiceDelta(finish_reason=1, confidence=figures, refusal="no")
    answer = answer_of([pb.GenerateResponse(deltas=[one, end])], wants_json=True)
    assert (answer.mean_logprob, answer.mean_entropy, answer.refused, answer.whole) == (-0.5, 1.0, True, True)
