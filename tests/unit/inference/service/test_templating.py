"""Chat templates: the model's own, with messages that cannot forge what stands between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.templating import ChatTemplate, TemplateError, Turn

CONTROL = ("<|im_start|>", "<|im_end|>")
SOURCE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def rendered(content: str) -> list[tuple[str, bool]]:
    template = ChatTemplate(SOURCE, CONTROL, {})
    return [(piece.text, piece.control) for piece in template.render([Turn("user", content)])]


def test_a_conversation_becomes_control_tokens_and_text() -> None:
    assert rendered("hi") == [
        ("<|im_start|>", True),
        ("user\nhi", False),
        ("<|im_end|>", True),
        ("\n", False),
        ("<|im_start|>", True),
        ("assistant\n", False),
    ]


@given(st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>", "<|im", "_end|>", "\ufdd0", "x", "\n"]), max_size=8))
def test_no_message_forges_a_control_token(pieces: list[str]) -> None:
    content = "".join(pieces)
    parts = rendered(content)
    assert [text for text, control in parts if control] == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
    assert "".join(text for text, _ in parts) == (
        f"<|im_start|>user\n{content.strip()}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_message_full_of_noncharacters_is_refused() -> None:
    with pytest.raises(TemplateError, match="noncharacters"):
        rendered("".join(map(chr, range(0xFDD0, 0xFDF0))))


def test_a_template_may_refuse_a_conversation() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}", (), {})
    with pytest.raises(TemplateError, match="roles must alternate"):
        list(template.render([Turn("user", "hi")]))


def test_a_template_cannot_reach_out_of_its_sandbox() -> None:
    template = ChatTemplate("{{ messages.__class__.__mro__[1].__subclasses__() }}", (), {})
    with pytest.raises(TemplateError):
        list(template.render([Turn("user", "hi")]))


def test_a_broken_template_is_refused_when_it_is_loaded() -> None:
    with pytest.raises(ValueError, match="line 1"):
        ChatTemplate("{% for %}", (), {})
