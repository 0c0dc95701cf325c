"""The calls in one choice of an OpenAI-compatible server's answer, whatever the server leaves out or repeats.

Servers are seen to give no index, 0 for every call, or indexes from 1; no id, the same id in each piece, or a new one;
the name once or in each piece; the arguments as text or as an object.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from headrace.common.v1 import generation_pb2 as pb
from inference.core.providers.chunks import as_json
from inference.core.providers.failures import Malformed
from inference.core.providers.halves import Halves, whole

_MOST: Final = 256
_LONGEST_ID: Final = 128
_MARKS: Final = re.compile(r'["\\{}\[\]]')


class Function(msgspec.Struct):
    """A call's name and arguments."""

    name: str | None = None
    arguments: Any = None


class ToolCall(msgspec.Struct):
    """One piece of a call."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class _Nesting:
    """Says when a JSON object that comes in pieces is closed."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = self._escaped = False
        self.closed = False

    def feed(self, text: str) -> None:
        escaped = 0 if self._escaped and text else -1
        for mark in _MARKS.finditer(text):
            at, character = mark.start(), mark[0]
            if at == escaped:
                continue
            if character == "\\":
                escaped = at + 1
            elif character == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._depth += 1 if character in "{[" else -1
                self.closed = self._depth <= 0
        if text:
            self._escaped = escaped == len(text)


class _Call:
    """One call as far as it is known."""

    def __init__(self, place: int, index: int | None, given: str) -> None:
        self.place = place
        self.index = index
        self.given = given
        self.name = ""
        self.begun = False
        # The server says the name more than once.
        self.repeats = False
        self.nesting = _Nesting()


class Calls:
    """Turns pieces into distinct calls, numbered from 0 and each with an id. `make_id` gives one for a number."""

    def __init__(self, make_id: Callable[[int], str]) -> None:
        self._make_id = make_id
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._halves: Halves[int] = Halves()

    def __bool__(self) -> bool:
        """Whether anything was called."""
        return bool(self._calls)

    def take(self, piece: ToolCall) -> pb.ToolCallDelta:
        """What a piece adds. Raises Malformed for more calls than any answer holds."""
        function = piece.function or Function()
        name, given = whole(function.name or ""), whole(piece.id or "")
        arguments = _text(function.arguments)
        index = piece.index if piece.index is not None and piece.index >= 0 else None
        call = self._known(index, given, name, arguments)
        delta = pb.ToolCallDelta()
        if call is None:
            call = self._open(index, given)
            delta.id = self._id(call)
        delta.index = call.place
        delta.name = _name(call, name)
        delta.arguments_json = self._halves.join(call.place, arguments)
        call.begun = call.begun or bool(arguments)
        call.nesting.feed(arguments)
        return delta

    def end(self) -> list[pb.ToolCallDelta]:
        """What is still missing: an empty object for calls without arguments. Raises Malformed for one without name."""
        if any(not call.name for call in self._calls):
            raise Malformed("a call without a name")
        missing = [pb.ToolCallDelta(index=call.place, arguments_json="{}") for call in self._calls if not call.begun]
        lost = [pb.ToolCallDelta(index=place, arguments_json=text) for place, text in self._halves.lost()]
        return missing + lost

    def _known(self, index: int | None, given: str, name: str, arguments: str) -> _Call | None:
        """The call that a piece goes on with; None where it begins another."""
        named = self._by_id.get(given) if given else None
        if named is not None and index in (None, named.index):
            return None if _begins_anew(named, name, arguments) else named
        if index is None:
            call = self._calls[-1] if self._calls else None
        else:
            call = self._by_index.get(index)
            if call is None and named is not None and not name:
                call = named
        if call is None or _begins_anew(call, name, arguments):
            return None
        if given and call.given:
            # Another id begins another call; without a name, and amid arguments, it is but a new id for each piece.
            return None if name or call.nesting.closed else call
        if index is None and name and name != call.name and not call.begun:
            return None
        return call

    def _open(self, index: int | None, given: str) -> _Call:
        if len(self._calls) >= _MOST:
            raise Malformed(f"more than {_MOST} calls in one answer")
        call = _Call(len(self._calls), index, given)
        self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        return call

    def _id(self, call: _Call) -> str:
        """The server's id where it names this call and no other."""
        if not call.given or call.given in self._by_id or len(call.given) > _LONGEST_ID:
            made = self._make_id(call.place)
            if call.given:
                self._by_id[call.given] = call
            return made
        self._by_id[call.given] = call
        return call.given


def _begins_anew(call: _Call, name: str, arguments: str) -> bool:
    """Whether a piece with a name begins another call although it is said to be of this one, which is complete."""
    if not name or not call.nesting.closed:
        return False
    return bool(arguments.strip()) or name != call.name or not (call.repeats or call.given)


def _name(call: _Call, name: str) -> str:
    """What a piece adds to the call's name."""
    if not name:
        return ""
    if name == call.name:
        call.repeats = True
        return ""
    if not call.name:
        call.name = name
        return name
    if call.begun:
        return ""
    added = name.removeprefix(call.name)
    call.name += added
    return added


def _text(arguments: Any) -> str:
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else as_json(arguments)
