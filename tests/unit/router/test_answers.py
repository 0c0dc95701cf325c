"""What is held back, what is remembered of what went out, and what it costs."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from headrace.common.v1 import generation_pb2 as common
from headrace.router.v1 import router_pb2 as pb
from router.core.catalog import Commit, Price
from router.core.decision_trace import DecisionTrace, Recent
from router.core.latency import Latency
from router.core.pacing import Pacer
from router.core.prices import affordable, cost_of, estimate
from router.core.release_policy import Open, ToolCalls, Whole, Window, release_policy_for
from router.core.resume_buffer import ResumeBuffer
from tests.fakes.clock import MovingClock
from tests.unit.router.surroundings import profile


def message(*deltas: common.ChoiceDelta, end: bool = False) -> pb.GenerateResponse:
    out = pb.GenerateResponse(deltas=deltas)
    if end:
        out.summary.SetInParent()
    return out


def text(ids: list[int], index: int = 0, finish: int = 0) -> common.ChoiceDelta:
    return common.ChoiceDelta(index=index, token_ids=ids, text="".join(f"{i} " for i in ids), finish_reason=finish)


PARTS = st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 99), min_size=1, max_size=4)), max_size=30)


@given(PARTS, st.integers(1, 20), st.integers(0, 3))
def test_gates_change_nothing_but_the_time(parts, tokens, kind) -> None:
    release_policy = [Open(), Window(Commit(tokens=tokens)), Whole(), ToolCalls(Window(Commit(tokens=tokens)))][kind]
    sent = [message(text(ids, index)) for index, ids in parts] + [message(text([1], finish=1), end=True)]
    got = [out for m in sent for out in release_policy.push(m, 0.0)]
    assert got == sent


@given(PARTS, st.integers(1, 20))
def test_a_window_opens_with_its_tokens_and_stays_open(parts, tokens) -> None:
    release_policy, count = Window(Commit(tokens=tokens)), 0
    for index, ids in parts:
        out = release_policy.push(message(text(ids, index)), 0.0)
        count += len(ids)
        assert bool(out) == (count >= tokens)


def test_a_window_opens_when_its_time_is_over() -> None:
    release_policy = Window(Commit(tokens=100, max_s=2.0))
    assert not release_policy.push(message(text([1])), 10.0)
    assert not release_policy.push(message(text([2])), 11.9)
    assert len(release_policy.push(message(text([3])), 12.0)) == 3


def test_half_a_tool_call_never_passes_and_other_choices_do_not_overtake() -> None:
    release_policy = release_policy_for(merged=False, structured=False, tools=True, commit=Commit())
    call = common.ChoiceDelta(index=0, token_ids=[5], tool_calls=[common.ToolCallDelta(name="f")])
    assert len(release_policy.push(message(text([1])), 0.0)) == 1
    assert not release_policy.push(message(call), 0.0)
    assert not release_policy.push(message(text([2], index=1)), 0.0)
    assert len(release_policy.push(message(common.ChoiceDelta(index=0, finish_reason=3)), 0.0)) == 3
    assert len(release_policy.push(message(text([3], index=1)), 0.0)) == 1


def test_what_is_too_large_to_hold_is_let_go() -> None:
    release_policy = Whole()
    big = common.ChoiceDelta(text="x" * 1024 * 1024)
    passed = [len(release_policy.push(message(big), 0.0)) for _ in range(5)]
    assert passed == [0, 0, 0, 4, 1]


@given(PARTS)
def test_the_resume_buffer_gives_back_what_went_out(parts) -> None:
    resume_buffer = ResumeBuffer(3)
    for index, ids in parts:
        resume_buffer.add(message(text(ids, index)))
    for i, entry in enumerate(resume_buffer.emitted()):
        ids = [x for index, part in parts for x in part if index == i]
        assert (entry.index, list(entry.token_ids)) == (i, ids)
        assert entry.text == "".join(f"{x} " for x in ids)
    assert resume_buffer.resumable
    assert resume_buffer.started == bool(parts)


@given(PARTS)
def test_nothing_is_kept_where_nothing_will_be_resumed(parts) -> None:
    resume_buffer = ResumeBuffer(3, keeps=False)
    for index, ids in parts:
        resume_buffer.add(message(text(ids, index, finish=1)))
    assert resume_buffer.finished == {index for index, _ in parts}
    assert (resume_buffer.tokens, resume_buffer.emitted(), resume_buffer.resumable) == (0, (), False)


def test_what_is_kept_is_bounded_and_let_go_when_it_is_too_much() -> None:
    resume_buffer = ResumeBuffer(1)
    piece = message(common.ChoiceDelta(token_ids=[1], text="x" * 1024 * 1024))
    for _ in range(3):
        resume_buffer.add(piece)
    assert len(resume_buffer.emitted()[0].text) == 3 * 1024 * 1024
    resume_buffer.add(piece)
    resume_buffer.add(piece)
    assert (resume_buffer.emitted(), resume_buffer.resumable, resume_buffer.keeps) == ((), False, False)


def test_text_without_token_ids_cannot_be_resumed() -> None:
    resume_buffer = ResumeBuffer(1)
    resume_buffer.add(message(common.ChoiceDelta(text="from a provider")))
    assert not resume_buffer.resumable


def test_choices_that_ended_are_struck_from_what_a_resuming_node_says() -> None:
    resume_buffer = ResumeBuffer(2)
    resume_buffer.add(message(text([1], 0, finish=1), text([2], 1)))
    late = message(text([9], 0), text([3], 1, finish=1))
    resume_buffer.without_finished(late)
    assert [(d.index, list(d.token_ids)) for d in late.deltas] == [(1, [3])]
    assert resume_buffer.finished == {0}


def test_costs_are_millionths_of_a_dollar_and_rounded_up() -> None:
    usage = common.Usage(prompt_tokens=10, completion_tokens=4, cached_tokens=6)
    assert cost_of(Price(input=2.0, output=3.0), usage) == 10 * 2 + 4 * 3
    assert cost_of(Price(input=2.0, output=3.0, cached=0.5), usage) == 4 * 2 + 6 * 0.5 + 12
    assert cost_of(Price(output=0.1), usage) == 1
    assert cost_of(Price(), usage) == 0


@given(st.floats(0, 1e4), st.floats(0.01, 1e3), st.integers(0, 10_000))
def test_what_is_affordable_is_within_the_budget(budget, price, chars) -> None:
    asked = profile("x" * chars)
    rates = Price(input=price / 10, output=price)
    maximum = affordable(rates, asked, budget)
    assert maximum is not None
    if estimate(rates, asked) <= budget:
        assert asked.prompt_tokens * price / 10 + maximum * price <= budget * (1 + 1e-9) + 1e-6
    assert affordable(Price(input=1.0), asked, budget) is None


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=300))
def test_the_percentile_is_of_the_last_answers(values) -> None:
    latency = Latency()
    for value in values:
        latency.add(value)
    last = sorted(values[-128:])
    assert latency.p95 == last[int(0.95 * (len(last) - 1))]
    assert min(values) <= latency.mean <= max(values)


@given(st.integers(1, 32), st.integers(0, 64), st.integers(1, 100))
def test_a_survivor_takes_at_once_what_fits_and_the_rest_in_turn(capacity, outstanding, inherited) -> None:
    pacer, starts = Pacer(), []
    for i in range(inherited):
        starts.append(pacer.wait(50.0, capacity, outstanding + i))
    free = max(0, capacity - outstanding)
    assert starts[:free] == [0.0] * min(free, inherited)
    rest = starts[free:]
    # At most two capacities a second, in the order they came.
    assert rest == sorted(rest)
    assert all(b - a >= 0.99 / (2 * capacity) for a, b in itertools.pairwise(rest))


def test_a_finished_request_is_remembered_by_its_last_word_alone() -> None:
    recent = Recent(2)
    held = [bytearray(10)]
    for i in range(3):
        recent.add(f"r{i}", DecisionTrace(MovingClock()), lambda: common.Disclosure(model=str(len(held))))
    assert recent.find("r0") is None
    recent.settle("r0", common.Disclosure())
    recent.settle("r2", common.Disclosure(model="last"))
    held.append(bytearray(10))
    assert [recent.find(name)[1].model for name in ("r1", "r2")] == ["2", "last"]
