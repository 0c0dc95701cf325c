"""Server-sent events, parsed from bytes as they arrive (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_LINE: Final = 1 << 20
MAX_EVENT: Final = 2 << 20
_BOM: Final = b"\xef\xbb\xbf"


class SseError(ValueError):
    """The stream is not server-sent events, or an event is larger than anything a provider sends."""


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event. `name` is empty where the stream gave none; several data lines are joined by a line feed."""

    name: str
    data: str


class SseParser:
    """Feeds on chunks cut anywhere, also within a character or between CR and LF.

    Comments, ids, retry times and events without data are read over. What stands before the stream's end without an
    empty line behind it is given out by `finish` alone.
    """

    def __init__(self, max_line: int = MAX_LINE, max_event: int = MAX_EVENT) -> None:
        self._max_line = max_line
        self._max_event = max_event
        self._rest = bytearray()
        # So much of it is known to hold no end of a line.
        self._scanned = 0
        self._data: list[str] = []
        self._size = 0
        self._name = ""
        self._first = True
        # The last line ended in CR: a LF that comes next belongs to it.
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that `chunk` completes. Raises SseError."""
        events: list[SseEvent] = []
        self._rest += chunk
        while (line := self._next_line()) is not None:
            if (event := self._take(line)) is not None:
                events.append(event)
        if len(self._rest) > self._max_line:
            raise SseError(f"a line of more than {self._max_line} bytes")
        return events

    def finish(self) -> SseEvent | None:
        """At the stream's end: its last event, if the empty line behind it is missing. It may be cut short.

        Raises SseError.
        """
        rest, self._rest = bytes(self._rest), bytearray()
        if rest:
            self._take(self._without_bom(rest))
        return self._dispatch()

    def _next_line(self) -> bytes | None:
        if self._after_cr and self._rest:
            self._after_cr = False
            if self._rest[0] == 0x0A:
                del self._rest[0]
        end = self._rest.find(b"\n", self._scanned)
        carriage = self._rest.find(b"\r", self._scanned, end if end >= 0 else len(self._rest))
        if carriage >= 0:
            end = carriage
        if end < 0:
            self._scanned = len(self._rest)
            return None
        self._scanned = 0
        self._after_cr = self._rest[end] == 0x0D
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        if len(line) > self._max_line:
            raise SseError(f"a line of more than {self._max_line} bytes")
        return self._without_bom(line)

    def _without_bom(self, line: bytes) -> bytes:
        if self._first:
            self._first = False
            return line.removeprefix(_BOM)
        return line

    def _take(self, line: bytes) -> SseEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        if field not in (b"data", b"event"):
            return None
        try:
            text = value.removeprefix(b" ").decode()
        except UnicodeDecodeError as error:
            raise SseError("a line that is not UTF-8") from error
        if field == b"event":
            self._name = text
            return None
        self._data.append(text)
        self._size += len(value)
        if self._size > self._max_event:
            raise SseError(f"an event of more than {self._max_event} bytes")
        return None

    def _dispatch(self) -> SseEvent | None:
        name, data = self._name, self._data
        self._name, self._data, self._size = "", [], 0
        text = "\n".join(data)
        # Without data there is no event, whatever its name; some servers send empty data to keep a connection.
        return SseEvent(name, text) if text.strip() else None
