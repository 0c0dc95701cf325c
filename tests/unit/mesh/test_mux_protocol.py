"""The two ends of a stream that carries calls, against each other, without a wire."""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headrace.mesh.v1 import mux_pb2 as pb
from mesh.mux.protocol import (
    BATCH_BYTES,
    PART_BYTES,
    WINDOW_BYTES,
    CallerEnd,
    ReplySink,
    ServerEnd,
    headers_of,
    metadata_of,
    parts,
)

SIZES = st.one_of(
    st.integers(0, 200),
    st.sampled_from([PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, WINDOW_BYTES, WINDOW_BYTES + 1, 3 * WINDOW_BYTES]),
)


class Call:
    """One call as the model has it: what is still to be sent, and what must arrive."""

    def __init__(self) -> None:
        self.answer: ReplySink
        self.queue: deque[tuple[bytes, bool]] = deque()
        self.expected: deque[bytes] = deque()
        self.ending = False
        self.dropped = False
        # Bytes that the server has sent and the caller has not been able to take yet.
        self.unread = 0


class Stream(RuleBasedStateMachine):
    """Any order of asking, sending, reading, dropping and delivering; the wire keeps its order, nothing else does."""

    @initialize()
    def begin(self) -> None:
        self.asking, self.answering = CallerEnd(), ServerEnd()
        self.there: deque[pb.CarryRequest] = deque()
        self.back: deque[pb.CarryResponse] = deque()
        self.calls: dict[int, Call] = {}
        self.serving: set[int] = set()
        self.sent = 0

    @rule(size=st.integers(0, PART_BYTES))
    def ask(self, size: int) -> None:
        call = Call()
        call.answer = self.asking.ask(pb.Ask(method="/m", body=b"q" * size), lambda: None)
        self.calls[call.answer.id] = call

    @rule(data=st.data(), size=SIZES)
    def say(self, data: st.DataObject, size: int) -> None:
        number = self._one(data, self.serving)
        if number is not None and not self.calls[number].ending:
            self.sent += 1
            message = (self.sent % 251).to_bytes(1, "big") * size
            self.calls[number].queue.extend(parts(message))
            self.calls[number].expected.append(message)

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        number = self._one(data, self.serving)
        if number is not None:
            self.calls[number].ending = True

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        number = self._one(data, {n for n, c in self.calls.items() if not c.dropped})
        if number is not None and self.calls[number].answer.end is None:
            self.asking.drop(self.calls[number].answer)
            self.calls[number].dropped = True

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        number = self._one(data, {n for n, c in self.calls.items() if not c.dropped})
        if number is not None:
            self._read(self.calls[number])

    @rule()
    def wire(self) -> None:
        self._serve()
        if (request := self.asking.batch()) is not None:
            self.there.append(request)
        if (response := self.answering.batch()) is not None:
            assert sum(len(p.part) for p in response.pieces) < BATCH_BYTES + PART_BYTES
            self.back.append(response)

    @rule()
    def arrive_there(self) -> None:
        if self.there:
            self._take(self.there.popleft())

    @rule()
    def arrive_back(self) -> None:
        if self.back:
            self.asking.deliver(self.back.popleft())

    @invariant()
    def nobody_holds_more_than_its_window(self) -> None:
        for number, call in getattr(self, "calls", {}).items():
            if number in self.serving:
                # What cannot be read yet, because the rest of its message is missing, does not count.
                assert call.unread <= WINDOW_BYTES + max(map(len, call.expected), default=0)

    def teardown(self) -> None:
        """Whatever happened: once everything is read, everything has come, in order, and both ends forget."""
        for call in self.calls.values():
            call.ending = True
        for _ in range(10_000):
            if not (self._step() or self.there or self.back):
                break
        for call in self.calls.values():
            if not call.dropped:
                assert not call.expected, "a message never came"
                assert call.answer.end is not None
                assert call.answer.end.code == 0
        assert self.asking.open == 0
        assert not self.serving

    def _step(self) -> bool:
        self._serve()
        moved = False
        while (request := self.asking.batch()) is not None:
            self.there.append(request)
            moved = True
        while (response := self.answering.batch()) is not None:
            self.back.append(response)
            moved = True
        while self.there:
            self._take(self.there.popleft())
            moved = True
        while self.back:
            self.asking.deliver(self.back.popleft())
            moved = True
        for call in self.calls.values():
            while not call.dropped and self._read(call):
                moved = True
        return moved

    def _take(self, request: pb.CarryRequest) -> None:
        for ask in request.asks:
            assert self.answering.opened(ask.id)
            self.serving.add(ask.id)
        list(self.answering.credited(request.credits))
        for number in request.cancels:
            self.answering.forget(number)
            self.serving.discard(number)

    def _serve(self) -> None:
        """Every handler sends what it may."""
        for number in sorted(self.serving):
            call = self.calls[number]
            while call.queue and self.answering.send(number, call.queue[0][0], more=call.queue[0][1]):
                call.unread += len(call.queue.popleft()[0])
            if call.ending and not call.queue:
                self.answering.end(number, pb.End())
                self.serving.discard(number)
                assert number not in self.answering

    def _read(self, call: Call) -> bool:
        message = self.asking.take(call.answer)
        if message is None:
            return False
        assert message == call.expected.popleft()
        call.unread -= len(message)
        return True

    @staticmethod
    def _one(data: st.DataObject, numbers: set[int]) -> int | None:
        return data.draw(st.sampled_from(sorted(numbers))) if numbers else None


TestStream = Stream.TestCase
TestStream.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_an_answer_that_nobody_reads_stops_alone() -> None:
    asking, answering = CallerEnd(), ServerEnd()
    answers = [asking.ask(pb.Ask(), lambda: None) for _ in range(2)]
    for ask in asking.batch().asks:
        answering.opened(ask.id)
    sent = 0
    while answering.send(answers[0].id, b"x" * PART_BYTES, more=False):
        sent += PART_BYTES
    assert sent == WINDOW_BYTES
    assert answering.send(answers[1].id, b"still", more=False)
    while (response := answering.batch()) is not None:
        asking.deliver(response)
    assert asking.take(answers[1]) == b"still"
    assert asking.batch() is None, "nothing was read of the first: it has no more room"
    while asking.take(answers[0]) is not None:
        pass
    assert set(answering.credited(asking.batch().credits)) == {answers[0].id}
    assert answering.send(answers[0].id, b"x" * PART_BYTES, more=False)


def test_an_answer_of_large_messages_that_nobody_reads_stops_too() -> None:
    """The parts of a message are paid for while it cannot be taken, those of the messages behind it are not."""
    asking, answering = CallerEnd(), ServerEnd()
    answer = asking.ask(pb.Ask(), lambda: None)
    answering.opened(asking.batch().asks[0].id)
    size, sent, stuck = PART_BYTES + PART_BYTES // 2, 0, False
    queue: deque[tuple[bytes, bool]] = deque()

    def exchange() -> None:
        while (response := answering.batch()) is not None:
            asking.deliver(response)
        request = asking.batch()
        list(answering.credited(request.credits if request else ()))

    while not stuck and sent < 100 * size:
        queue = queue or deque(parts(b"x" * size))
        stuck = not answering.send(answer.id, *queue[0][:1], more=queue[0][1])
        if not stuck:
            sent += len(queue.popleft()[0])
            exchange()
    assert stuck
    assert sent <= WINDOW_BYTES + size
    taken = 0
    while asking.take(answer) is not None:
        taken += 1
    exchange()
    assert taken >= 2
    assert answering.send(answer.id, queue[0][0], more=queue[0][1])


def test_a_stream_that_breaks_ends_every_call_on_it_as_it_ended() -> None:
    asking, changed = CallerEnd(), []
    answers = [asking.ask(pb.Ask(), lambda i=i: changed.append(i)) for i in range(3)]
    asking.drop(answers[1])
    asking.fail(14, "reset")
    assert changed == [0, 2]
    assert [a.end and a.end.code for a in answers] == [14, None, 14]
    assert asking.open == 0


def test_a_call_dropped_before_it_was_sent_is_never_sent() -> None:
    asking = CallerEnd()
    asking.drop(asking.ask(pb.Ask(), lambda: None))
    assert asking.batch() is None


def test_draining_is_said_once_and_with_whatever_comes() -> None:
    answering = ServerEnd()
    answering.drain()
    assert answering.batch() == pb.CarryResponse(draining=True)
    assert answering.batch() is None


def test_metadata_arrives_as_it_was() -> None:
    metadata = (("x-request-id", "req-ä"), ("grpc-status-details-bin", b"\x00\xff"), ("x-request-id", "again"))
    assert metadata_of(headers_of(metadata)) == metadata
