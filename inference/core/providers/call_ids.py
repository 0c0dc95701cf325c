"""Ids of calls: in a form that the provider accepts, whoever gave them out."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Final

from inference.core.chat_port import ChatRequest
from inference.core.tool_calls.ids import letters


@dataclass(frozen=True, slots=True)
class IdForm:
    """The ids that a provider accepts, and how to make one: `prefix` and `length` letters and digits."""

    pattern: re.Pattern[str]
    prefix: str
    length: int

    def made(self, source: str) -> str:
        """The id for this source; no other source has it."""
        return self.prefix + letters(source.encode(), self.length)


# OpenAI refuses ids of more than 40 characters.
OPENAI: Final = IdForm(re.compile(r"[!-~]{1,40}"), "call_", 24)
ANTHROPIC: Final = IdForm(re.compile(r"[a-zA-Z0-9_-]{1,64}"), "toolu_", 24)
MISTRAL: Final = IdForm(re.compile(r"[a-zA-Z0-9]{9}"), "", 9)


class CallIds:
    """The ids of one conversation, asked for in its order, as the provider is told them.

    An id that fits stays as it is. One that does not, or that an earlier call has already, becomes another one, the
    same on every node; what answers a call gets the id of its call.
    """

    def __init__(self, form: IdForm) -> None:
        self._form = form
        # By the caller's id: how many calls had it, and the ids given to those that wait for their answer.
        self._seen: dict[str, int] = defaultdict(int)
        self._waiting: dict[str, deque[str]] = defaultdict(deque)
        self._answered: dict[str, str] = {}

    def of_call(self, call_id: str) -> str:
        """The id of a call of the conversation."""
        count = self._seen[call_id]
        self._seen[call_id] += 1
        given = self._form.made(f"{call_id}\0{count}") if count else self._fitting(call_id)
        self._waiting[call_id].append(given)
        return given

    def of_answer(self, call_id: str) -> str:
        """The id of the call that a tool's message answers: of several under one id, the first without an answer."""
        if waiting := self._waiting[call_id]:
            self._answered[call_id] = waiting.popleft()
        return self._answered.get(call_id) or self._fitting(call_id)

    def _fitting(self, call_id: str) -> str:
        return call_id if self._form.pattern.fullmatch(call_id) else self._form.made(call_id)


@dataclass(frozen=True, slots=True)
class FreshIds:
    """Ids for calls that a provider names none for: the same wherever the same request is answered."""

    source: str

    @classmethod
    def of(cls, request: ChatRequest) -> FreshIds:
        """For the answer to that request."""
        context, turns = request.context, len(request.generation.prompt.chat.messages)
        return cls(f"{context.tenant}\0{context.request_id}\0{turns}")

    def make(self, choice: int, call: int) -> str:
        """The id of a choice's call; both count from 0."""
        return OPENAI.made(f"{self.source}\0{choice}\0{call}")
