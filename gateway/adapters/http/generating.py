"""POST /v1/chat/completions and /v1/completions: from a body to an answer, whole or as events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

from gateway.adapters.http.bodies import BodyReader, encoding_of
from gateway.adapters.http.exchange import Exchange, Headers, RequestRefused
from gateway.adapters.http.keep_alive import KeepAlive
from gateway.core.admission import Admission, seconds_of
from gateway.core.model_catalog import ModelCatalog
from gateway.core.openai.answer import DONE, Disclosed, NameModel, disclosed_of, usage_of
from gateway.core.openai.api_requests import ApiRequest, Stream
from gateway.core.openai.errors import ErrorDetail, Refusal, param_of, refusal_of
from gateway.core.request_pipeline import AdmittedRequest, Chunk, RequestPipeline
from headrace.common.v1.generation_pb2 import Disclosure
from mesh.clock import Deadline
from mesh.errors import DeadlineExceeded, InvalidArgument, MeshError

_DISCLOSE_HEADER: Final = "x-headrace-disclose"
_TIMEOUT_HEADER: Final = "x-headrace-timeout"
# The router's own word on the deadline is waited for; this ends what waits for a client that does not read.
_GRACE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a request over HTTP may take. Bytes and seconds; see GatewayConfig."""

    max_body_bytes: int
    body_timeout_s: float
    keep_alive_s: float


class GeneratingEndpoint:
    """Answers the questions of one kind."""

    def __init__(
        self,
        decode: Callable[[bytes], ApiRequest],
        admission: Admission,
        request_pipeline: RequestPipeline,
        *,
        catalog: ModelCatalog,
        limits: HttpLimits,
    ) -> None:
        self._decode = decode
        self._admission = admission
        self._pipeline = request_pipeline
        self._catalog = catalog
        self._limits = limits
        self._bodies = BodyReader(limits.max_body_bytes)

    async def __call__(self, exchange: Exchange) -> None:
        """Answer. Raises MeshError and RequestRefused for what could not be answered and was not yet said."""
        caller = self._admission.authenticate(exchange.header(b"authorization"), exchange.header(b"x-api-key"))
        exchange.caller = caller
        _check_content_type(exchange)
        encoding = encoding_of(exchange.header(b"content-encoding"))
        with self._admission.shed.enter(), self._bodies.held() as held:
            body = await exchange.body(self._limits.max_body_bytes, self._limits.body_timeout_s)
            held.size = len(body)
            question = await self._bodies.read(body, encoding, self._decode)
            # The body is not held while it is answered.
            del body
            exchange.model = question.model
            exchange.discloses = _discloses(exchange)
            admitted = AdmittedRequest(
                caller,
                exchange.scope.request_id,
                question.user,
                question.generations,
                self._deadline(exchange, question),
                whole=not question.streams,
            )
            with exchange.cancelled_with_client():
                await self._see_through(exchange, question, admitted)

    async def _see_through(self, exchange: Exchange, question: ApiRequest, admitted: AdmittedRequest) -> None:
        try:
            self._catalog.check(question.model, question.generations)
            await self._answer(exchange, question, admitted)
        except MeshError as error:
            exchange.reason = error.reason
            param = param_of(error.field, question.prompt_field, question.max_tokens_field)
            usage = usage_of(exchange.usage_totals.settled) if question.includes_usage else None
            await exchange.fail(refusal_of(error, param), _disclosed(exchange), usage)

    async def _answer(self, exchange: Exchange, question: ApiRequest, admitted: AdmittedRequest) -> None:
        try:
            async with asyncio.timeout(admitted.deadline.left() + _GRACE_S):
                await (self._stream if question.streams else self._whole)(exchange, question, admitted)
        except TimeoutError:
            raise DeadlineExceeded("The request's time was over before its answer was.") from None

    async def _whole(self, exchange: Exchange, question: ApiRequest, admitted: AdmittedRequest) -> None:
        answer, usage_totals = question.answer(self._namer(question)), exchange.usage_totals
        async with aclosing(self._pipeline.answer(admitted, usage_totals)) as chunks:
            async for chunk in chunks:
                answer.add(chunk)
                if usage_totals.complete:
                    # The client need not wait until the call has ended as well.
                    body = answer.encode(usage_of(usage_totals.usage), _disclosed(exchange))
                    await exchange.respond(200, body, _headers(usage_totals.disclosure))

    async def _stream(self, exchange: Exchange, question: ApiRequest, admitted: AdmittedRequest) -> None:
        stream, usage_totals = question.stream(self._namer(question)), exchange.usage_totals
        keep_alive = KeepAlive(exchange, self._limits.keep_alive_s)
        async with aclosing(self._pipeline.answer(admitted, usage_totals)) as chunks:
            with keep_alive:
                await self._send(exchange, stream, chunks, keep_alive)

    async def _send(
        self, exchange: Exchange, stream: Stream, chunks: AsyncIterator[Chunk], keep_alive: KeepAlive
    ) -> None:
        usage_totals = exchange.usage_totals
        async for chunk in chunks:
            keep_alive.sends()
            if not exchange.stream:
                # Not earlier: what fails before the router has committed itself gets a status of its own.
                await exchange.start_stream(_headers(usage_totals.disclosure))
            events = stream.events(chunk)
            if usage_totals.complete:
                await exchange.end(events + stream.last(usage_of(usage_totals.usage), _disclosed(exchange)) + DONE)
                continue
            if events:
                await exchange.write(events)
            keep_alive.waits()

    def _namer(self, question: ApiRequest) -> NameModel:
        return partial(self._catalog.name_in_answer, question.model)

    def _deadline(self, exchange: Exchange, question: ApiRequest) -> Deadline:
        asked = exchange.header(_TIMEOUT_HEADER.encode())
        if asked is not None:
            return self._admission.deadline(seconds_of(asked, _TIMEOUT_HEADER))
        # How long OpenAI's clients wait for the next byte: of an answer in one piece, that is for all of it.
        patience = exchange.header(b"x-stainless-read-timeout")
        if patience is None or question.streams or not patience.replace(".", "", 1).isdigit():
            return self._admission.deadline(None)
        return self._admission.deadline(float(patience) or None)


def _check_content_type(exchange: Exchange) -> None:
    content_type = exchange.headers.get(b"content-type", b"application/json").lower()
    if content_type.partition(b";")[0].strip() != b"application/json":
        message = "The body must be JSON: send 'content-type: application/json'."
        detail = ErrorDetail(message, "invalid_request_error", None, "unsupported_media_type")
        raise RequestRefused(Refusal(415, detail))


def _discloses(exchange: Exchange) -> bool:
    wanted = exchange.header(_DISCLOSE_HEADER.encode())
    if wanted not in (None, "true", "false"):
        raise InvalidArgument(f"{_DISCLOSE_HEADER}: 'true' or 'false' is needed.", field=_DISCLOSE_HEADER)
    return wanted == "true"


def _disclosed(exchange: Exchange) -> Disclosed | None:
    disclosure = exchange.usage_totals.disclosure
    if disclosure is None or not exchange.discloses:
        return None
    return disclosed_of(disclosure, exchange.scope.request_id)


def _headers(disclosure: Disclosure | None) -> Headers:
    """What is known of how the answer came about by the time that the headers are sent."""
    if disclosure is None:
        return []
    return [
        (b"x-headrace-deployment", disclosure.deployment.encode("latin-1", "replace")),
        (b"x-headrace-model", disclosure.model.encode("latin-1", "replace")),
        (b"x-headrace-revision", disclosure.revision.encode("latin-1", "replace")),
        (b"x-headrace-attempts", b"%d" % len(disclosure.attempts)),
        (b"x-headrace-cost-usd", b"%.6f" % (disclosure.cost_micro_usd / 1e6)),
    ]
