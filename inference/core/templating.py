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
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Unicode's noncharacters: never assigned, so nothing is lost when a text that holds all of them is refused.
_GUARDS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))


class TemplateError(ValueError):
    """The template does not accept the conversation; the message is the template's own."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message as templates see it."""

    role: str
    content: str


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
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"chat template, line {error.lineno}: {error.message}") from error
        self._variables = dict(variables)
        # Longest first: of two tokens that begin alike the longer one is meant.
        ordered = sorted((text for text in control if text), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def render(self, turns: list[Turn]) -> Iterator[Rendered]:
        """The prompt that asks the model for the next answer. Raises TemplateError."""
        guard = _unused(turns)
        messages = [{"role": turn.role, "content": self._guarded(turn.content, guard)} for turn in turns]
        try:
            text = self._template.render(messages=messages, add_generation_prompt=True, **self._variables)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise TemplateError(str(error)) from error
        return self._split(text, guard)

    def _guarded(self, content: str, guard: str) -> str:
        if self._control is None:
            return content
        return self._control.sub(lambda match: match[0][0] + guard + match[0][1:], content)

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


def _unused(turns: list[Turn]) -> str:
    for guard in _GUARDS:
        if not any(guard in turn.content for turn in turns):
            return guard
    raise TemplateError("the messages hold every one of Unicode's noncharacters U+FDD0 to U+FDEF")


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now(tz=datetime.UTC).strftime(form)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
