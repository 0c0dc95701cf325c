"""Tools, past calls and their answers as the model's template takes them, or as text where it knows of none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from headrace.common.v1 import chat_pb2
from inference.core.checks import RequestError
from inference.core.templating import Call, Turn
from inference.core.tool_calls.documents import read_object
from inference.core.tool_calls.formats import Format
from inference.core.tool_calls.ids import template_id
from inference.core.tool_calls.parameters import parameters

_CHAT = "generation.prompt.chat"
# Templates know no developer; it is the newer word for system.
_ROLES = {
    chat_pb2.ROLE_SYSTEM: "system",
    chat_pb2.ROLE_DEVELOPER: "system",
    chat_pb2.ROLE_USER: "user",
    chat_pb2.ROLE_ASSISTANT: "assistant",
    chat_pb2.ROLE_TOOL: "tool",
}
_INTRODUCTION = """\
You can call functions. Each line between <tools> and </tools> describes one, with a JSON schema of its arguments.
<tools>
{tools}
</tools>
To call a function, write nothing but its name and its arguments as a JSON object, in this form:
{call}
What it returned is then shown between <tool_response> and </tool_response>. Use it to answer in plain words."""


def tools_of(chat: chat_pb2.ChatPrompt) -> list[dict[str, Any]]:
    """The tools as OpenAI writes them, which is what templates read. Raises RequestError."""
    made = []
    for i, tool in enumerate(chat.tools):
        try:
            schema = parameters(tool)
        except ValueError as error:
            raise RequestError(f"{_CHAT}.tools[{i}].parameters_json", str(error)) from error
        described = {"description": tool.description} if tool.description else {}
        made.append({"type": "function", "function": {"name": tool.name, **described, "parameters": schema}})
    return made


def turns_of(chat: chat_pb2.ChatPrompt, form: Format) -> list[Turn]:
    """The conversation's turns. Raises RequestError for arguments of a past call that are no JSON object."""
    names: dict[str, str] = {}
    turns = []
    for i, message in enumerate(chat.messages):
        calls = tuple(
            _call(call, f"{_CHAT}.messages[{i}].tool_calls[{k}]") for k, call in enumerate(message.tool_calls)
        )
        names |= {call.id: call.name for call in calls}
        turns.append(
            Turn(
                _ROLES[message.role],
                "\n".join(part.text for part in message.content),
                calls=tuple(replace(call, id=template_id(call.id, form)) for call in calls),
                call_id=template_id(message.tool_call_id, form),
                name=names.get(message.tool_call_id, ""),
            )
        )
    return turns


def spelt_out(turns: Iterable[Turn], tools: list[dict[str, Any]], form: Format) -> list[Turn]:
    """The same for a template that knows neither tools nor calls: everything as text of the three usual roles."""
    made: list[Turn] = []
    answering = False
    for turn in turns:
        role, text = turn.role, _with_calls(turn, form)
        if role == "tool":
            role, text = "user", f"<tool_response>\n{turn.content}\n</tool_response>"
        if answering and role == "user":
            # Some templates refuse two turns of a user in a row.
            text = f"{made.pop().content}\n{text}"
        made.append(Turn(role, text))
        answering = turn.role == "tool"
    if tools:
        text = _introduction(tools, form)
        if made and made[0].role == "system":
            made[0] = Turn("system", f"{made[0].content}\n\n{text}")
        else:
            made.insert(0, Turn("system", text))
    return made


def written(calls: Iterable[tuple[str, str]], form: Format) -> str:
    """Calls, each a name and its arguments as JSON, as the model writes them."""
    each = [f"{form.before}{name}{form.after}{arguments}{form.end}" for name, arguments in calls]
    return f"{form.opening}{form.separator.join(each)}{form.closing}"


def _introduction(tools: list[dict[str, Any]], form: Format) -> str:
    lines = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    return _INTRODUCTION.format(tools=lines, call=written([("NAME", "{...}")], form))


def _with_calls(turn: Turn, form: Format) -> str:
    if not turn.calls:
        return turn.content
    text = written([(call.name, json.dumps(call.arguments, ensure_ascii=False)) for call in turn.calls], form)
    return f"{turn.content}\n{text}" if turn.content else text


def _call(call: chat_pb2.ToolCall, field: str) -> Call:
    try:
        return Call(call.id, call.name, read_object(call.arguments_json or "{}"))
    except ValueError as error:
        raise RequestError(f"{field}.arguments_json", str(error)) from error
