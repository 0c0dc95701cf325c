"""Turns what an engine says of one choice into what the caller gets: text and calls of tools."""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.common.v1 import generation_pb2 as pb
from inference.core.port import Confidence, EngineDelta, EngineRequest, EngineSummary, Finish, TokenLogprob
from inference.core.reading import Reader, TokenBytes
from inference.core.requests import TextRequest
from inference.core.tool_calls.formats import Format
from inference.core.tool_calls.ids import fresh_id
from inference.core.tool_calls.parsing import Gained

_FINISH = {Finish.STOP: pb.FINISH_REASON_STOP, Finish.LENGTH: pb.FINISH_REASON_LENGTH}
CallId = Callable[[int], str]


class ResumeMismatch(ValueError):
    """The text that a caller holds is not what its tokens say."""


class Choice:
    """One answer in the making.

    `resume` gives it the tokens and the text that an earlier node emitted; from there on what the caller gets is what
    one undisturbed run would have given. Pieces of calls need not be told: the caller has what their tokens gave.
    `call_id` gives the id of the call of an index.
    """

    def __init__(self, index: int, token_bytes: TokenBytes, reader: Reader, call_id: CallId) -> None:
        self.index = index
        # Tokens drawn here, not those of an earlier node.
        self.tokens = 0
        self.finished = False
        self._token_bytes = token_bytes
        self._reader = reader
        self._call_id = call_id
        self._owed = ""

    def resume(self, tokens: tuple[int, ...], text: str) -> pb.ChoiceDelta | None:
        """Take over. Returns a last delta if those tokens already hold a stop string. Raises ResumeMismatch."""
        passed = self._reader.feed(tokens).text
        if not passed.startswith(text):
            raise ResumeMismatch(f"choice {self.index}: the text does not come from the tokens")
        self._owed = passed[len(text) :]
        return self._finish(pb.FINISH_REASON_STOP, None, Gained()) if self._reader.stopped else None

    def take(self, delta: EngineDelta) -> pb.ChoiceDelta | None:
        """What the caller gains; None once this choice is finished."""
        if self.finished:
            return None
        read, used = self._read(delta.tokens)
        self.tokens += used
        if self._reader.stopped:
            gained = self._finish(pb.FINISH_REASON_STOP, delta.confidence, read)
        elif delta.finish is not None:
            called = delta.finish is Finish.STOP and self._reader.called
            reason = pb.FINISH_REASON_TOOL_CALLS if called else _FINISH[delta.finish]
            gained = self._finish(reason, delta.confidence, read)
        else:
            gained = self._delta(read)
        gained.token_ids.extend(delta.tokens[:used])
        gained.logprobs.extend(self._logprob(entry) for entry in delta.logprobs[:used])
        return gained

    def _read(self, tokens: tuple[int, ...]) -> tuple[Gained, int]:
        """What tokens gave, and how many of them: none is given that was drawn behind a stop string."""
        if not self._reader.stops:
            return self._reader.feed(tokens), len(tokens)
        read = Gained()
        for used, token in enumerate(tokens, 1):
            more = self._reader.feed((token,))
            read.text += more.text
            read.pieces += more.pieces
            if self._reader.stopped:
                return read, used
        return read, len(tokens)

    def _delta(self, read: Gained) -> pb.ChoiceDelta:
        gained = pb.ChoiceDelta(index=self.index, text=self._paid() + read.text)
        for piece in read.pieces:
            call_id = self._call_id(piece.index) if piece.name else ""
            gained.tool_calls.add(index=piece.index, id=call_id, name=piece.name, arguments_json=piece.arguments)
        _join_calls(gained)
        return gained

    def _finish(self, reason: pb.FinishReason.ValueType, confidence: Confidence | None, read: Gained) -> pb.ChoiceDelta:
        self.finished = True
        gained = self._delta(read)
        gained.text += self._reader.flush(cut=reason == pb.FINISH_REASON_LENGTH)
        gained.finish_reason = reason
        if confidence is not None:
            gained.confidence.CopyFrom(
                pb.Confidence(
                    mean_logprob=confidence.mean_logprob,
                    min_logprob=confidence.min_logprob,
                    mean_entropy=confidence.mean_entropy,
                    mean_margin=confidence.mean_margin,
                    tokens=confidence.tokens,
                )
            )
        return gained

    def _paid(self) -> str:
        owed, self._owed = self._owed, ""
        return owed

    def _logprob(self, entry: TokenLogprob) -> pb.TokenLogprob:
        raw = self._token_bytes(entry.token)
        gained = pb.TokenLogprob(token_id=entry.token, text=_readable(raw), raw=raw, logprob=entry.logprob)
        top = entry.top
        if top and all(token != entry.token for token, _ in top):
            # What was drawn stands among the alternatives, behind the best.
            top = (*top, (entry.token, entry.logprob))
        for token, logprob in top:
            raw = self._token_bytes(token)
            gained.top.add(token_id=token, text=_readable(raw), raw=raw, logprob=logprob)
        return gained


class Answer:
    """All choices of one generation. Raises ResumeMismatch from the constructor."""

    def __init__(self, asked: TextRequest, token_bytes: TokenBytes) -> None:
        request = asked.engine
        self._prompt_tokens = len(request.prompt)
        self._choices = [
            Choice(
                i,
                token_bytes,
                Reader(token_bytes, asked.stops, asked.calls, only_calls=asked.only_calls),
                _call_ids(request, i, asked.calls),
            )
            for i in range(request.n)
        ]
        self._running = set(range(request.n))
        self._started = time.monotonic()
        self._first: float | None = None
        # Deltas of choices that were over before the engine was asked.
        self.ended_before: list[pb.ChoiceDelta] = []
        for choice, tokens, text in zip(self._choices, request.emitted, asked.emitted_text, strict=False):
            if (last := choice.resume(tokens, text)) is not None:
                self.ended_before.append(last)

    def take(self, delta: EngineDelta) -> pb.ChoiceDelta | None:
        """What the caller gains; None where the choice is over for the caller already."""
        if self._first is None:
            self._first = time.monotonic()
        if delta.finish is not None:
            self._running.discard(delta.index)
        return self._choices[delta.index].take(delta)

    @property
    def completion_tokens(self) -> int:
        """Tokens that were given out here, of all choices."""
        return sum(choice.tokens for choice in self._choices)

    def over(self, index: int) -> bool:
        """Whether choice `index` is over for the caller while the engine still draws tokens for it."""
        return index in self._running and self._choices[index].finished

    @property
    def cut_short(self) -> bool:
        """Whether every choice is over while the engine still draws tokens for one."""
        return bool(self._running) and all(choice.finished for choice in self._choices)

    def own_summary(self) -> EngineSummary:
        """The summary of an answer that was cut short, which its engine gives none of."""
        now = time.monotonic()
        first = self._first or now
        return EngineSummary(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self.completion_tokens,
            prefill_s=first - self._started,
            decode_s=now - first,
        )


def to_summary(summary: EngineSummary) -> pb.GenerationSummary:
    """The summary in the contract's terms; the node adds the model's name and revision."""
    gained = pb.GenerationSummary(
        usage=pb.Usage(
            prompt_tokens=summary.prompt_tokens,
            completion_tokens=summary.completion_tokens,
            cached_tokens=summary.cached_tokens,
        ),
        timings=pb.Timings(drafted_tokens=summary.drafted_tokens, accepted_tokens=summary.accepted_tokens),
    )
    gained.timings.queue.FromNanoseconds(int(summary.queue_s * 1e9))
    gained.timings.prefill.FromNanoseconds(int(summary.prefill_s * 1e9))
    gained.timings.decode.FromNanoseconds(int(summary.decode_s * 1e9))
    return gained


def _readable(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace")


def merge(deltas: list[pb.ChoiceDelta]) -> list[pb.ChoiceDelta]:
    """The same gains in as few deltas as possible: one a choice, in the order in which the choices came."""
    by_choice: dict[int, list[pb.ChoiceDelta]] = {}
    for delta in deltas:
        by_choice.setdefault(delta.index, []).append(delta)
    return [_merged(group) for group in by_choice.values()]


def _merged(deltas: list[pb.ChoiceDelta]) -> pb.ChoiceDelta:
    first, *later = deltas
    if not later:
        return first
    # Strings do not merge by appending, repeated fields do.
    text, refusal = "".join(delta.text for delta in deltas), "".join(delta.refusal for delta in deltas)
    for delta in later:
        first.MergeFrom(delta)
    first.text, first.refusal = text, refusal
    _join_calls(first)
    return first


def _call_ids(request: EngineRequest, choice: int, form: Format | None) -> CallId:
    """Ids that another node would give too when it resumes the answer, and no other request is given."""

    def call_id(index: int) -> str:
        if form is None:
            raise ValueError("an answer without tools has no calls")
        prompt = b"".join(token.to_bytes(4, "little") for token in request.prompt)
        return fresh_id(f"{request.tenant}\0{request.request_id}\0{choice}\0{index}\0".encode() + prompt, form)

    return call_id


def _join_calls(delta: pb.ChoiceDelta) -> None:
    """Leave one piece for each call: OpenAI's client loses what else a chunk says of one."""
    if len(delta.tool_calls) < 2:
        return
    pieces: dict[int, list[pb.ToolCallDelta]] = {}
    for piece in delta.tool_calls:
        pieces.setdefault(piece.index, []).append(piece)
    joined = [
        pb.ToolCallDelta(
            index=index,
            id="".join(piece.id for piece in group),
            name="".join(piece.name for piece in group),
            arguments_json="".join(piece.arguments_json for piece in group),
        )
        for index, group in pieces.items()
    ]
    del delta.tool_calls[:]
    delta.tool_calls.extend(joined)
