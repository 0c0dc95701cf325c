"""The two ends of a stream that carries calls: what is open, what waits to be sent, and how much may be. No I/O.

Each answer may have `WINDOW_BYTES` on their way unread, so one that nobody reads stops alone. Messages above
`PART_BYTES` travel in parts, and batches end at `BATCH_BYTES`, so a large one does not hold up the small ones behind it
for long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from headrace.mesh.v1 import mux_pb2 as pb

WINDOW_BYTES: Final = 256 * 1024
PART_BYTES: Final = 64 * 1024
BATCH_BYTES: Final = 256 * 1024

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]


class ReplySink:
    """The asking side of one call. `changed` is called when there is something to take or the answer has ended."""

    __slots__ = ("_in_parts", "_joined", "_ready", "came", "changed", "end", "id", "owed")

    def __init__(self, number: int, changed: Callable[[], None]) -> None:
        self.id = number
        self.changed = changed
        # Whether anything has come.
        self.came = False
        # Set once the call is over; messages that came before may still be there to take.
        self.end: pb.End | None = None
        # Bytes read that the other end has not been told of.
        self.owed = 0
        self._ready: deque[bytes] = deque()
        self._joined: list[bytes] = []
        # Bytes that came in parts and are not owed yet.
        self._in_parts = 0

    def add(self, part: bytes, *, more: bool) -> None:
        """The next part has come."""
        if more or self._joined:
            self._joined.append(part)
            self._in_parts += len(part)
            self._settle()
            if more:
                return
            self._ready.append(b"".join(self._joined))
            self._joined.clear()
        else:
            self._ready.append(part)

    def take(self) -> bytes | None:
        """The next message; None while there is none."""
        if not self._ready:
            return None
        message = self._ready.popleft()
        if len(message) <= PART_BYTES:
            self.owed += len(message)
        self._settle()
        return message

    def _settle(self) -> None:
        """Parts of a message that cannot be taken yet must not use up the window, unless another can be taken first."""
        if not self._ready:
            self.owed += self._in_parts
            self._in_parts = 0


class CallerEnd:
    """The end that asks."""

    def __init__(self) -> None:
        self._open: dict[int, ReplySink] = {}
        self._last = 0
        self._asks: dict[int, pb.Ask] = {}
        self._credits: list[pb.Credit] = []
        self._cancels: list[int] = []

    @property
    def open(self) -> int:
        """Calls under way."""
        return len(self._open)

    @property
    def waits(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._asks or self._credits or self._cancels)

    def ask(self, ask: pb.Ask, changed: Callable[[], None]) -> ReplySink:
        """Put a call on the stream; its number is filled in."""
        self._last += 1
        ask.id = self._last
        answer = self._open[ask.id] = ReplySink(ask.id, changed)
        self._asks[ask.id] = ask
        return answer

    def take(self, answer: ReplySink) -> bytes | None:
        """The answer's next message; None while there is none."""
        message = answer.take()
        self._repay(answer)
        return message

    def drop(self, answer: ReplySink) -> None:
        """The answer is not wanted any more. Does nothing where it has ended."""
        if self._open.pop(answer.id, None) is None:
            return
        if self._asks.pop(answer.id, None) is None:
            self._cancels.append(answer.id)

    def deliver(self, response: pb.CarryResponse) -> None:
        """Take in what came."""
        for piece in response.pieces:
            answer = self._open.get(piece.id)
            if answer is None:
                # Dropped while it was on its way.
                continue
            answer.came = True
            if piece.HasField("part"):
                answer.add(piece.part, more=piece.more)
            if piece.HasField("end"):
                answer.end = piece.end
                del self._open[answer.id]
            elif piece.more:
                self._repay(answer)
                continue
            answer.changed()

    def fail(self, code: int, details: str) -> None:
        """The stream is over: so are all calls on it."""
        answers, self._open = list(self._open.values()), {}
        for answer in answers:
            answer.end = pb.End(code=code, details=details)
            answer.changed()

    def batch(self) -> pb.CarryRequest | None:
        """What waits to be sent, at most a batch of it; None when nothing does."""
        if not self.waits:
            return None
        request = pb.CarryRequest(credits=self._credits, cancels=self._cancels)
        self._credits, self._cancels = [], []
        asks, size = [], 0
        while self._asks and size < BATCH_BYTES:
            ask = self._asks.pop(next(iter(self._asks)))
            size += len(ask.body)
            asks.append(ask)
        request.asks.extend(asks)
        return request

    def _repay(self, answer: ReplySink) -> None:
        if answer.owed >= WINDOW_BYTES // 2 and answer.end is None:
            self._credits.append(pb.Credit(id=answer.id, bytes=answer.owed))
            answer.owed = 0


class ServerEnd:
    """The end that answers."""

    def __init__(self) -> None:
        # Bytes that each open answer may still send.
        self._room: dict[int, int] = {}
        self._pieces: deque[pb.Piece] = deque()
        self._draining = False
        self._told = False

    def __contains__(self, number: int) -> bool:
        return number in self._room

    def opened(self, number: int) -> bool:
        """A call has come; False where its number is taken, which no caller may do."""
        if number in self._room:
            return False
        self._room[number] = WINDOW_BYTES
        return True

    def credited(self, credits: Iterable[pb.Credit]) -> Iterator[int]:
        """Take credits in; the numbers of the calls that they are for."""
        for credit in credits:
            if credit.id in self._room:
                self._room[credit.id] += credit.bytes
                yield credit.id

    def send(self, number: int, part: bytes, *, more: bool) -> bool:
        """Queue a part of an answer; False where there is no room for it now. What nobody wants is dropped."""
        room = self._room.get(number)
        if room is None:
            return True
        if room < len(part):
            return False
        self._room[number] = room - len(part)
        self._pieces.append(pb.Piece(id=number, part=part, more=more))
        return True

    def accept(self, number: int) -> None:
        """Queue the news that the call is being handled, before there is anything of its answer."""
        if number in self._room:
            self._pieces.append(pb.Piece(id=number))

    def end(self, number: int, end: pb.End) -> None:
        """Queue the end of an answer, and forget the call."""
        if self._room.pop(number, None) is None:
            return
        last = self._pieces[-1] if self._pieces else None
        if last is not None and last.id == number:
            last.end.CopyFrom(end)
        else:
            self._pieces.append(pb.Piece(id=number, end=end))

    def forget(self, number: int) -> None:
        """Nobody wants the answer any more."""
        self._room.pop(number, None)

    def drain(self) -> None:
        """Tell the other end that new calls belong elsewhere."""
        self._draining = True

    def batch(self) -> pb.CarryResponse | None:
        """What waits to be sent, at most a batch of it; None when nothing does."""
        news = self._draining and not self._told
        if not (self._pieces or news):
            return None
        self._told = self._draining
        response = pb.CarryResponse(draining=self._draining)
        pieces, size = [], 0
        while self._pieces and size < BATCH_BYTES:
            piece = self._pieces.popleft()
            size += len(piece.part)
            pieces.append(piece)
        response.pieces.extend(pieces)
        return response


def parts(message: bytes) -> Iterator[tuple[bytes, bool]]:
    """A message in parts, each with whether another follows."""
    if len(message) <= PART_BYTES:
        yield message, False
        return
    for start in range(0, len(message), PART_BYTES):
        yield message[start : start + PART_BYTES], start + PART_BYTES < len(message)


def headers_of(metadata: Iterable[tuple[str, str | bytes]]) -> list[pb.Header]:
    """Metadata as it is sent."""
    return [pb.Header(key=k, value=v.encode() if isinstance(v, str) else v) for k, v in metadata]


def metadata_of(headers: Iterable[pb.Header]) -> Metadata:
    """Metadata as it was before it was sent."""
    pairs = [(header.key, header.value) for header in headers]
    return tuple([(k, v if k.endswith("-bin") else v.decode(errors="replace")) for k, v in pairs])
