"""A model's own chat template, rendered so that no message can forge the tokens that stand between messages.

Templates are Jinja programs that come with a model's files, so they run in Jinja's immutable sandbox. They write
control tokens such as "<|im_end|>" as text; a message may hold the same text. Before rendering, each control token's
text inside a message is broken up by a noncharacter that occurs nowhere in the conversation; after it, what still
reads as a control token can only be the template's own, and the noncharacters are taken out again.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Unicode's noncharacters: never assigned, so nothing is lost when a text that holds all of them is refused.
_GUARDS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))


class TemplateError(ValueError):
    """The template does not accept the conversation; the message is the template's own."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that an assistant made; the arguments are what its JSON says."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message as templates see it. `call_id` and `name` are of the call that a tool's turn answers."""

    role: str
    content: str
    calls: tuple[Call, ...] = ()
    call_id: str = ""
    name: str = ""

    def as_message(self) -> dict[str, Any]:
        """The message as transformers hands it to templates: what is not there has no key."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.calls
            ]
        if self.call_id:
            message["tool_call_id"] = self.call_id
        if self.name:
            message["name"] = self.name
        return message


@dataclass(frozen=True, slots=True)
class Rendered:
    """A stretch of the prompt: one control token, or plain text."""

    text: str
    control: bool


class ChatTemplate:
    """One compiled template.

    `control` lists the texts of the model's control tokens; `variables` are what templates refer to by name, such as
    "bos_token". Raises ValueError if the source is no template.
    """

    def __init__(self, source: str, control: Iterable[str], variables: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_LOOP_CONTROLS])
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _strftime_now
        environment.filters["tojson"] = _to_json
        try:
            self._template = environment.from_string(source)
            names = jinja2.meta.find_undeclared_variables(environment.parse(source))
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"chat template, line {error.lineno}: {error.message}") from error
        self._variables = dict(variables)
        self.source = source
        # Whether it describes tools, and writes calls and their answers.
        self.takes_tools = "tools" in names
        # Longest first: of two tokens that begin alike the longer one is meant.
        ordered = sorted((text for text in control if text), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def render(self, turns: list[Turn], tools: list[dict[str, Any]] | None = None) -> Iterator[Rendered]:
        """The prompt that asks for the next answer; `tools` as OpenAI writes them. Raises TemplateError."""
        messages = [turn.as_message() for turn in turns]
        guard = _unused([messages, tools])
        given = {"messages": self._guarded(messages, guard), "tools": self._guarded(tools, guard) or None}
        try:
            text = self._template.render(**given, add_generation_prompt=True, **self._variables)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise TemplateError(str(error)) from error
        return self._split(text, guard)

    def _guarded(self, value: Any, guard: str) -> Any:
        """The value with the text of each control token in its strings broken up, and in its keys."""
        if isinstance(value, str):
            if self._control is None:
                return value
            return self._control.sub(lambda match: match[0][0] + guard + match[0][1:], value)
        if isinstance(value, list):
            return [self._guarded(inner, guard) for inner in value]
        if isinstance(value, dict):
            return {self._guarded(key, guard): self._guarded(inner, guard) for key, inner in value.items()}
        return value

    def _split(self, text: str, guard: str) -> Iterator[Rendered]:
        at = 0
        for match in self._control.finditer(text) if self._control else ():
            if match.start() > at:
                yield Rendered(text[at : match.start()].replace(guard, ""), control=False)
            yield Rendered(match[0], control=True)
            at = match.end()
        if at < len(text):
            yield Rendered(text[at:].replace(guard, ""), control=False)


_LOOP_CONTROLS = "jinja2.ext.loopcontrols"


def _unused(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    for guard in _GUARDS:
        if guard not in text:
            return guard
    raise TemplateError("the messages hold every one of Unicode's noncharacters U+FDD0 to U+FDEF")


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now(tz=datetime.UTC).strftime(form)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **form: Any) -> str:
    # Jinja's own would write "<" as an escape, which no model was taught.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **form)
