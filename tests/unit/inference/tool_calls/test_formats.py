"""Which format a model has, by its template. The templates are cut down to what tells them apart."""

import pytest

from inference.core.tool_calls.formats import HERMES, LLAMA, MISTRAL, MISTRAL_ARGS, MISTRAL_SPACED, Format, format_of

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
QWEN = CHATML + '{% if tools %}<tool_call>\n{"name": <name>, "arguments": <object>}\n</tool_call>{% endif %}'
LLAMA_3_1 = "{% if m.tool_calls %}{{ '{\"name\": \"' + c.name + '\", ' }}{{ '\"parameters\": ' }}{% endif %}"


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("", HERMES),
        (CHATML, HERMES),
        (QWEN, HERMES),
        (LLAMA_3_1, LLAMA),
        ('{{- "[TOOL_CALLS] [" }}', MISTRAL_SPACED),
        ("{{- '[TOOL_CALLS][' }}", MISTRAL),
        ("{{- '[TOOL_CALLS]' + c.name + '[ARGS]' }}", MISTRAL_ARGS),
        ("{{- '[TOOL_CALLS]' + c.name + '[CALL_ID]' + c.id + '[ARGS]' }}", HERMES),
    ],
)
def test_a_template_tells_its_format(template: str, form: Format) -> None:
    assert format_of(template) is form
