"""Ids of calls on their way to providers that accept only some."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.providers.call_ids import ANTHROPIC, MISTRAL, OPENAI, CallIds, FreshIds, IdForm
from tests.unit.inference.providers.asking import USER, chat_request

_FORMS = (OPENAI, ANTHROPIC, MISTRAL)
_IDS = st.text(max_size=60) | st.sampled_from(["", "a", "abcdefghi", "call_1", "chatcmpl-tool-" + "0" * 32])


@given(ids=st.lists(_IDS, max_size=12), form=st.sampled_from(_FORMS))
def test_every_call_has_an_id_of_its_own_and_its_answer_finds_it(ids: list[str], form: IdForm) -> None:
    """Whatever the ids are, and however often one comes; on every node the same."""
    mapped, again = CallIds(form), CallIds(form)
    given_out = [mapped.of_call(call_id) for call_id in ids]
    assert given_out == [again.of_call(call_id) for call_id in ids]
    assert len(set(given_out)) == len(ids)
    assert all(form.pattern.fullmatch(one) for one in given_out)
    assert [mapped.of_answer(call_id) for call_id in ids] == given_out


@pytest.mark.parametrize(("form", "fits"), [(OPENAI, "call_x|1"), (ANTHROPIC, "toolu_1-x"), (MISTRAL, "abcDEF123")])
def test_an_id_that_fits_stays(form: IdForm, fits: str) -> None:
    """A provider's own ids come back to it as it gave them out."""
    mapped = CallIds(form)
    assert mapped.of_call(fits) == fits
    assert [mapped.of_answer(fits), mapped.of_answer(fits)] == [fits, fits]


def test_one_id_in_two_turns_is_two_calls() -> None:
    """Some servers count their calls from 0 in every answer."""
    mapped = CallIds(ANTHROPIC)
    first, answer = mapped.of_call("call_0"), mapped.of_answer("call_0")
    second, other = mapped.of_call("call_0"), mapped.of_answer("call_0")
    assert (first, second) == (answer, other)
    assert first != second


def test_ids_made_here_follow_from_the_request() -> None:
    """Another request has others, and so has another turn of the same conversation."""
    request = chat_request(USER)
    ids = FreshIds.of(request)
    assert ids.make(0, 0) == FreshIds.of(chat_request(USER)).make(0, 0)
    made = {ids.make(choice, call) for choice in range(3) for call in range(3)}
    assert len(made) == 9
    assert FreshIds.of(chat_request(USER, USER)).make(0, 0) not in made
    assert all(form.pattern.fullmatch(ids.make(0, 0)) for form in (OPENAI, ANTHROPIC))
