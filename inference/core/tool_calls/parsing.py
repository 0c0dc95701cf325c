"""Reads the calls of tools out of an answer while it is being written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from inference.core.stops import overlap
from inference.core.tool_calls.formats import Format


@dataclass(slots=True)
class Piece:
    """What the call of that index gained; its first piece has the name, and no arguments yet."""

    index: int
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Gained:
    """What a stretch of text gave: text for the reader, and pieces of calls, in order."""

    text: str = ""
    pieces: list[Piece] = field(default_factory=list)


class CallParser:
    """A state machine over the text of one answer. However the text is split, the joined result is the same.

    Nothing that belongs to a call's spelling is given out as text. From where an answer leaves the format, which none
    does that is held to its constraint, it is text again.
    """

    def __init__(self, form: Format) -> None:
        self._form = form
        self._held = ""
        self._step: Callable[[Gained], bool] = self._text if form.anywhere else self._beginning
        self._depth = 0
        self._quoted = self._escaped = False
        # Calls begun so far.
        self.calls = 0

    def feed(self, text: str) -> Gained:
        """What may be given out now."""
        gained = Gained()
        self._held += text
        while self._held and self._step(gained):
            pass
        return gained

    def flush(self, *, cut: bool = False) -> str:
        """The text that was held back, when the answer ends: it was not the beginning of a call. Of a call nothing.

        Where the answer was cut, it would have gone on: what looks like a call so far, by more than one character, is
        taken for one.
        """
        held, self._held = self._held, ""
        text = self._step in (self._text, self._beginning)
        return held if text and not (cut and len(held) > 1) else ""

    # A step takes what it can from the front of `_held`, and says whether another step may find something to do.

    def _text(self, gained: Gained) -> bool:
        trigger = self._form.trigger
        at = self._held.find(trigger)
        if at < 0:
            gained.text += self._take(len(self._held) - overlap(self._held, trigger))
            return False
        gained.text += self._take(at)
        self._step = self._opening
        return True

    def _beginning(self, gained: Gained) -> bool:
        trigger = self._form.trigger
        if self._held.startswith(trigger):
            self._step = self._opening
        elif trigger.startswith(self._held):
            return False
        else:
            self._step = self._plain
        return True

    def _plain(self, gained: Gained) -> bool:
        gained.text += self._take(len(self._held))
        return False

    def _opening(self, gained: Gained) -> bool:
        return self._literals({self._form.opening + self._form.before: self._name})

    def _name(self, gained: Gained) -> bool:
        at = self._held.find(self._form.after)
        if at < 0:
            return False
        if at == 0:
            self._step = self._plain
            return True
        gained.pieces.append(Piece(self.calls, name=self._take(at)))
        self._take(len(self._form.after))
        self.calls += 1
        self._step = self._arguments
        return True

    def _arguments(self, gained: Gained) -> bool:
        end = next((i + 1 for i, character in enumerate(self._held) if self._closes(character)), 0)
        gained.pieces.append(Piece(self.calls - 1, arguments=self._take(end or len(self._held))))
        if end:
            self._step = self._between
        return bool(end)

    def _between(self, gained: Gained) -> bool:
        form = self._form
        another = form.end + form.separator + form.before
        known: dict[str, Callable[[Gained], bool]] = {form.end + form.closing: self._plain}
        if form.parallel:
            # Where the ending is how another call begins too, the longer one is looked for first.
            known = {another: self._name} | known
        return self._literals(known)

    def _literals(self, known: dict[str, Callable[[Gained], bool]]) -> bool:
        """Go on with the step of the literal that comes next; wait while it may still be one."""
        for literal, step in known.items():
            if self._held.startswith(literal):
                self._take(len(literal))
                self._step = step
                return True
            if literal.startswith(self._held):
                return False
        self._step = self._plain
        return True

    def _closes(self, character: str) -> bool:
        """Whether the arguments end with this character of them."""
        if self._quoted:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._quoted = False
        elif character == '"':
            self._quoted = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            return self._depth == 0
        return False

    def _take(self, count: int) -> str:
        taken, self._held = self._held[:count], self._held[count:]
        return taken
