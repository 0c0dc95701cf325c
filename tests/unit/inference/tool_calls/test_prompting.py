"""Tools and past calls in the prompt: through a template that takes them, and as text for one that does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from headrace.common.v1.chat_pb2 import ChatPrompt
from inference.core.checks import RequestError
from inference.core.templating import ChatTemplate, TemplateError
from inference.core.tool_calls.formats import HERMES, MISTRAL, Format
from inference.core.tool_calls.prompting import spelt_out, tools_of, turns_of

CONTROL = ("<|im_start|>", "<|im_end|>")
PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Takes tools as Qwen's, Llama's and Mistral's templates do: by name, through tojson, with arguments as an object.
TAKING = (
    "{% if not tools is defined %}{% set tools = none %}{% endif %}"
    "{% if tools is not none %}{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.tool_calls is defined %}{% for call in m.tool_calls %}"
    "({{ call.id }} {{ call.function.name }} {{ call.function.arguments | tojson }}){% endfor %}{% endif %}"
    "{% if m.role == 'tool' %} to {{ m.tool_call_id }} of {{ m.name }}{% endif %}<|im_end|>\n{% endfor %}"
)
WEATHER = {
    "name": "weather",
    "description": "Of a city.",
    "parametersJson": '{"type": "object", "properties": {"city": {"type": "string"}}}',
}
TOOL = '{"name": "weather", "description": "Of a city.", "parameters": ' + WEATHER["parametersJson"] + "}"
USER = {"role": "ROLE_USER", "content": [{"text": "Rain in Oslo?"}]}
CALL = {"id": "call_1", "name": "weather", "argumentsJson": '{"city": "Oslo", "days": [1, 2]}'}
TURNS: list[dict[str, Any]] = [
    USER,
    {"role": "ROLE_ASSISTANT", "content": [{"text": "Let me see."}], "toolCalls": [CALL, CALL | {"id": "call_2"}]},
    {"role": "ROLE_TOOL", "toolCallId": "call_1", "content": [{"text": "rain"}]},
    {"role": "ROLE_TOOL", "toolCallId": "call_2", "content": [{"text": "snow"}]},
]


def chat(*messages: dict[str, Any], tools: tuple[dict[str, str], ...] = (WEATHER,)) -> ChatPrompt:
    return json_format.ParseDict({"messages": messages, "tools": tools}, ChatPrompt())


def plainly(prompt: ChatPrompt, form: Format = HERMES) -> str:
    template = ChatTemplate(PLAIN, CONTROL, {})
    assert not template.takes_tools
    turns = spelt_out(turns_of(prompt, form), tools_of(prompt), form)
    return "".join(piece.text for piece in template.render(turns))


def through_template(prompt: ChatPrompt, form: Format = HERMES) -> str:
    template = ChatTemplate(TAKING, CONTROL, {})
    assert template.takes_tools
    return "".join(piece.text for piece in template.render(turns_of(prompt, form), tools_of(prompt)))


def test_tools_are_described_in_the_system_message() -> None:
    made = plainly(chat({"role": "ROLE_SYSTEM", "content": [{"text": "Be brief."}]}, USER))
    system, user, _ = made.split("<|im_end|>\n")
    assert system.startswith("<|im_start|>system\nBe brief.\n\n")
    assert f"<tools>\n{TOOL}\n</tools>" in system
    assert '<tool_call>\n{"name": "NAME", "arguments": {...}}\n</tool_call>' in system
    assert user == "<|im_start|>user\nRain in Oslo?"
    assert plainly(chat(USER)).startswith("<|im_start|>system\nYou can call functions.")
    assert plainly(chat(USER, tools=())) == "<|im_start|>user\nRain in Oslo?<|im_end|>\n<|im_start|>assistant\n"


def test_past_calls_and_answers_become_text_of_the_usual_roles() -> None:
    made = plainly(chat(*TURNS, {"role": "ROLE_USER", "content": [{"text": "Well?"}]}, tools=()))
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": [1, 2]}}\n'
    assert made == (
        "<|im_start|>user\nRain in Oslo?<|im_end|>\n"
        f"<|im_start|>assistant\nLet me see.\n{call}</tool_call>\n{call}</tool_call><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nrain\n</tool_response>\n<tool_response>\nsnow\n</tool_response>\nWell?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_template_that_takes_tools_gets_what_transformers_gives_it() -> None:
    made = through_template(chat(*TURNS))
    assert made == (
        '{"type": "function", "function": ' + TOOL + "}\n"
        "<|im_start|>user\nRain in Oslo?<|im_end|>\n"
        '<|im_start|>assistant\nLet me see.(call_1 weather {"city": "Oslo", "days": [1, 2]})'
        '(call_2 weather {"city": "Oslo", "days": [1, 2]})<|im_end|>\n'
        "<|im_start|>tool\nrain to call_1 of weather<|im_end|>\n"
        "<|im_start|>tool\nsnow to call_2 of weather<|im_end|>\n"
    )


def test_ids_fit_templates_that_want_nine_characters() -> None:
    made = through_template(chat(*TURNS), MISTRAL)
    (first,) = {line.split()[-3] for line in made.splitlines() if line.startswith("rain")}
    assert len(first) == 9
    assert f"({first} weather" in made
    given = chat(USER, {"role": "ROLE_ASSISTANT", "toolCalls": [CALL | {"id": "abcDEF123"}]})
    assert "(abcDEF123 weather" in through_template(given, MISTRAL)


@pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', "1", '{"a":' * 100_000, '{"a":' * 500 + "1" + "}" * 500])
def test_arguments_of_a_past_call_are_an_object_in_json(arguments: str) -> None:
    prompt = chat(USER, {"role": "ROLE_ASSISTANT", "toolCalls": [CALL, CALL | {"argumentsJson": arguments}]})
    with pytest.raises(RequestError, match=r"JSON|nested") as caught:
        turns_of(prompt, HERMES)
    assert caught.value.field == "generation.prompt.chat.messages[1].tool_calls[1].arguments_json"


def test_a_call_without_arguments_has_none() -> None:
    prompt = chat(USER, {"role": "ROLE_ASSISTANT", "toolCalls": [CALL | {"argumentsJson": ""}]})
    assert "(call_1 weather {})" in through_template(prompt)


pieces = st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>", "<|im", "_end|>", "\ufdd0", "x", '"']), max_size=6)


@given(pieces.map("".join))
def test_nothing_in_tools_and_calls_forges_a_control_token(text: str) -> None:
    arguments = json.dumps({text: [text]})
    prompt = chat(
        USER,
        {"role": "ROLE_ASSISTANT", "toolCalls": [CALL | {"argumentsJson": arguments}]},
        {"role": "ROLE_TOOL", "toolCallId": "call_1", "content": [{"text": text}]},
        tools=({"name": "weather", "description": text, "parametersJson": json.dumps({"description": text})},),
    )
    turns, tools = turns_of(prompt, HERMES), tools_of(prompt)
    taking = list(ChatTemplate(TAKING, CONTROL, {}).render(turns, tools))
    assert [piece.text for piece in taking if piece.control] == ["<|im_start|>", "<|im_end|>"] * 3
    assert json.dumps({text: [text]}, ensure_ascii=False) in "".join(piece.text for piece in taking)
    plain = list(ChatTemplate(PLAIN, CONTROL, {}).render(spelt_out(turns, tools, HERMES)))
    assert [piece.text for piece in plain if piece.control] == [*["<|im_start|>", "<|im_end|>"] * 4, "<|im_start|>"]


def test_a_template_may_refuse_the_calls() -> None:
    template = ChatTemplate("{{ raise_exception('one call at a time') if tools }}", (), {})
    with pytest.raises(TemplateError, match="one call at a time"):
        list(template.render(turns_of(chat(USER), HERMES), tools_of(chat(USER))))
