"""One answer from a provider's bytes: events, deltas, its end, and what one that is none ends with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headrace.common.v1.generation_pb2 import ChoiceDelta, GenerationSummary
from inference.core.providers.bound import Bound
from inference.core.providers.chunks import BadChunk
from inference.core.providers.dialect import Reader
from inference.core.providers.failures import Malformed
from inference.core.providers.sse import SseError, SseParser
from mesh.errors import MeshError


class AnswerStream:
    """Feeds on the body of one response. Raises MeshError where the provider reports one or breaks its own rules."""

    def __init__(self, reader: Reader, bound: Bound) -> None:
        self._reader = reader
        self._bound = bound
        self._parser = SseParser()
        # The one chunk that could not be read.
        self._unread: BadChunk | None = None

    @property
    def over(self) -> bool:
        """Nothing that follows is read: the provider has said its end, or the answer is beyond its bound."""
        return self._reader.done or self._beyond

    @property
    def whole(self) -> bool:
        """Nothing of the answer is missing, whether or not the provider says its own end."""
        return self._reader.whole

    @property
    def progress(self) -> int:
        """Grows with every sign that the model is at work; its thoughts are some, keep-alives are none."""
        return self._reader.progress

    def feed(self, chunk: bytes) -> Iterator[ChoiceDelta]:
        """What the next bytes of the body add, one after the other; what came before an error comes before it here."""
        try:
            for event in self._parser.feed(chunk):
                try:
                    deltas = self._reader.take(event)
                except BadChunk as error:
                    # One that cannot be read need not end an answer that comes to its own end all the same.
                    if self._unread is not None:
                        raise
                    self._unread = error
                    continue
                for delta in deltas:
                    self._bound.add(delta)
                    yield delta
                if self.over:
                    return
        except SseError as error:
            raise Malformed(str(error)) from error

    def end(self) -> tuple[Sequence[ChoiceDelta], GenerationSummary]:
        """The last deltas and the summary, once the body has ended or nothing more is read."""
        if self._beyond:
            last, summary = self._reader.cut()
            if not summary.usage.completion_tokens:
                summary.usage.completion_tokens = self._bound.tokens(self._reader.progress)
            return last, summary
        gained = self._rest()
        try:
            last, summary = self._reader.end()
        except MeshError as error:
            raise (self._unread or error) from error
        return [*gained, *last], summary

    def _rest(self) -> Sequence[ChoiceDelta]:
        """What an event gives whose empty line is missing."""
        try:
            if not self._reader.done and (event := self._parser.finish()) is not None:
                return self._reader.take(event)
        except (SseError, Malformed):
            # Cut within the event: the reader knows whether anything is missing.
            return ()
        return ()

    @property
    def _beyond(self) -> bool:
        return self._bound.passed(self._reader.progress)
