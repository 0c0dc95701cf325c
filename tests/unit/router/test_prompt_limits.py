"""Prompts that fit nobody are refused by their size, and those that may fit are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.router.v1 import router_pb2
from mesh.errors import InvalidArgument
from router.core.prompt_limits import check_prompt
from router.core.request_profile import profile_of


def check(request: router_pb2.GenerateRequest, context: int) -> None:
    check_prompt(request.generation.prompt, profile_of(request), context)


def chat(text: str, *, tool: str = "") -> router_pb2.GenerateRequest:
    request = router_pb2.GenerateRequest()
    request.generation.prompt.chat.messages.add(role=3).content.add(text=text)
    if tool:
        request.generation.prompt.chat.tools.add(name="f", description=tool)
    return request


def refusal(request: router_pb2.GenerateRequest, context: int) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as raised:
        check(request, context)
    assert raised.value.reason == "CONTEXT_TOO_LONG"
    assert f"maximum context length is {context} tokens" in raised.value.message
    return raised.value


def test_what_is_too_much_is_named() -> None:
    prose = "some words of a prompt that goes on and on, " * 20_000
    text, tokens = router_pb2.GenerateRequest(), router_pb2.GenerateRequest()
    text.generation.prompt.text = prose
    tokens.generation.prompt.tokens.token_ids.extend(range(4096))
    assert refusal(chat(prose), 4096).field == "generation.prompt.chat.messages"
    assert refusal(chat("short", tool=prose), 4096).field == "generation.prompt.chat.tools"
    assert refusal(text, 4096).field == "generation.prompt.text"
    assert refusal(tokens, 4096).field == "generation.prompt.tokens"
    check(tokens, 4097)
    # Where somebody's context is not known, that one may have room.
    check(chat(prose), 0)


def test_bytes_alone_decide_where_tokens_are_long() -> None:
    """A rule of dashes makes few tokens by its looks; no vocabulary makes as few of it as this."""
    assert refusal(chat("-" * 600_000), 4096)
    check(chat("-" * 400_000), 4096)


@given(st.text(min_size=1, max_size=200), st.integers(1, 40))
def test_whatever_could_fit_goes_on(text: str, times: int) -> None:
    """A token is at least one byte, so this much fits for certain."""
    request = chat(text * times)
    check(request, len((text * times).encode()) + 64)


def test_an_image_is_no_text() -> None:
    request = chat("what is this?")
    request.generation.prompt.chat.messages[0].content.add().image.data = bytes(3_000_000)
    check(request, 4096)
