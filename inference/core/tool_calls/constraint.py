"""The constraint that holds an answer to the tools that it may call, as xgrammar's structural tags.

Only the kinds of tags are used that xgrammar has had since 0.1.25, but for `any_text` with exclusions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from headrace.common.v1.chat_pb2 import ChatPrompt, Tool, ToolChoice
from inference.core.checks import RequestError
from inference.core.constraints.schema.keywords import resolve
from inference.core.port import Constraint, ConstraintKind
from inference.core.tool_calls.documents import read_json
from inference.core.tool_calls.formats import Format
from inference.core.tool_calls.parameters import parameters

_CHAT = "generation.prompt.chat"
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# Keywords that a type cannot stand beside.
_COMPOSED = frozenset({"anyOf", "oneOf", "allOf", "enum", "const"})
# Whatever does not begin like a call that has to be the whole answer.
_OTHER_TEXT = r"root ::= ([^{] [\u0000-\U0010ffff]*)?"


def may_call(chat: ChatPrompt) -> bool:
    """Whether the answer may hold calls at all."""
    return bool(chat.tools) and chat.tool_choice.mode != ToolChoice.MODE_NONE


def must_call(chat: ChatPrompt) -> bool:
    """Whether the answer can be nothing but calls."""
    return chat.tool_choice.mode in (ToolChoice.MODE_NAMED, ToolChoice.MODE_REQUIRED)


def constraint_of(chat: ChatPrompt, form: Format, response: Constraint | None) -> Constraint | None:
    """What an answer to `chat`, which has tools, is held to; `response` is what its text has to be.

    Raises RequestError, naming the tool, for a schema that is none of an object. What else the arguments cannot be held
    to is found when the constraint is compiled, which knows the schemas' places from it.

    A tool that is named is called once, and nothing follows; clients that force a call read that one.
    """
    mode = chat.tool_choice.mode
    if mode == ToolChoice.MODE_NONE:
        return response or _structural({"type": "any_text", "excludes": [form.trigger]}, ())
    named = mode == ToolChoice.MODE_NAMED
    schemas, places = {}, []
    for i, (tool, schema) in enumerate(zip(chat.tools, _schemas(chat), strict=True)):
        if not named or tool.name == chat.tool_choice.name:
            schemas[tool.name] = schema
            places.append(f"{_CHAT}.tools[{i}].parameters_json")
    parallel = form.parallel and (chat.parallel_tool_calls or not chat.HasField("parallel_tool_calls"))
    calls = _calls(schemas, form, parallel=parallel and not named)
    if must_call(chat):
        return _structural({"type": "or", "elements": calls}, places)
    if response is not None:
        if not form.anywhere:
            raise RequestError(
                "generation.sampling.response_format",
                "this model's calls could not be told from such an answer; leave out one of it and the tools",
                reason="UNSUPPORTED_CONSTRAINT",
            )
        places.append(f"generation.sampling.response_format.{response.kind.value}")
        return _structural({"type": "or", "elements": [*calls, _content(response)]}, places)
    if form.anywhere:
        free = {"type": "triggered_tags", "triggers": [form.trigger], "tags": calls, "stop_after_first": True}
        return _structural(free, places)
    return _structural({"type": "or", "elements": [*calls, {"type": "grammar", "grammar": _OTHER_TEXT}]}, places)


def _structural(form: dict[str, Any], places: Iterable[str]) -> Constraint:
    source = json.dumps({"type": "structural_tag", "format": form})
    return Constraint(ConstraintKind.STRUCTURAL_TAG, source, tuple(places))


def _calls(schemas: dict[str, Any], form: Format, *, parallel: bool) -> list[dict[str, Any]]:
    """Tags of which an answer has one: a call each, or all of its calls in one tag, so that nothing follows them."""
    opening, closing = ("", "") if parallel else (form.opening, form.closing)
    each = [
        {
            "type": "tag",
            "begin": f"{opening}{form.before}{name}{form.after}",
            "content": {"type": "json_schema", "json_schema": schema},
            "end": f"{form.end}{closing}",
        }
        for name, schema in schemas.items()
    ]
    if not parallel:
        return each
    several = {"type": "tags_with_separator", "tags": each, "separator": form.separator, "at_least_one": True}
    return [{"type": "tag", "begin": form.opening, "content": several, "end": form.closing}]


def _content(response: Constraint) -> dict[str, Any]:
    match response.kind:
        case ConstraintKind.REGEX:
            return {"type": "regex", "pattern": response.source}
        case ConstraintKind.GRAMMAR:
            return {"type": "grammar", "grammar": response.source}
        case ConstraintKind.JSON_SCHEMA:
            return {"type": "json_schema", "json_schema": _read(response.source)}
        case _:
            return {"type": "json_schema", "json_schema": {"type": "object"}}


def _read(source: str) -> Any:
    try:
        return read_json(source)
    except ValueError as error:
        field, message = "generation.sampling.response_format.json_schema", f"the JSON schema cannot be read: {error}"
        raise RequestError(field, message, reason="UNSUPPORTED_CONSTRAINT") from error


def _schemas(chat: ChatPrompt) -> list[Any]:
    """Each tool's schema. Raises RequestError."""
    seen: set[str] = set()
    schemas = []
    for i, tool in enumerate(chat.tools):
        field = f"{_CHAT}.tools[{i}]"
        if not _NAME.fullmatch(tool.name):
            raise RequestError(f"{field}.name", f"{tool.name[:80]!r} is not 1 to 64 of a-z, A-Z, 0-9, _ and -")
        if tool.name in seen:
            raise RequestError(f"{field}.name", f"another tool is called {tool.name!r} too")
        seen.add(tool.name)
        schemas.append(_schema(tool, f"{field}.parameters_json"))
    return schemas


def _schema(tool: Tool, field: str) -> Any:
    try:
        schema = parameters(tool)
    except ValueError as error:
        raise RequestError(field, str(error)) from error
    if not _of_objects(schema):
        raise RequestError(field, "arguments are an object: its type and its properties stand at the top of the schema")
    return schema


def _of_objects(schema: dict[str, Any]) -> bool:
    """Whether the schema is one of objects, as far as its top says; an unsaid type is said."""
    if "$ref" in schema:
        target = resolve(str(schema["$ref"]), schema)
        return isinstance(target, dict) and target.get("type") == "object"
    if schema.keys() & _COMPOSED:
        return False
    return bool(schema.setdefault("type", "object") == "object")
