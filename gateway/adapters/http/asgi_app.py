"""The ASGI application: finds the handler, turns every failure into an answer, and writes the summary line."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

import structlog

from gateway.adapters.http.cors import Cors
from gateway.adapters.http.exchange import Exchange, Message, Receive, RequestRefused, Send
from gateway.adapters.metrics import Meter
from gateway.core.openai.errors import ErrorDetail, Refusal, refusal_of
from mesh import telemetry
from mesh.errors import Internal, MeshError, Outcome, Unavailable

_log = structlog.get_logger()

Handler: TypeAlias = Callable[[Exchange], Awaitable[None]]
# Path to method to handler. A path that ends in "/" stands for all that begin with it and go on.
Routes: TypeAlias = Mapping[str, Mapping[str, Handler]]

# Both travel on in headers and gRPC metadata, which carry ASCII without control characters.
_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")
_TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_NO_ORIGINS: Final = Cors(())
# Asked every second by everyone.
_QUIET: Final = frozenset({"/healthz", "/readyz"})


class AsgiApp:
    """One application. `closing` says whether connections should end with their next answer."""

    def __init__(self, routes: Routes, meter: Meter, closing: Callable[[], bool], cors: Cors = _NO_ORIGINS) -> None:
        self._routes = routes
        self._prefixes = tuple(path for path in routes if path.endswith("/"))
        self._meter = meter
        self._closing = closing
        self._cors = cors

    async def __call__(self, asgi: Message, receive: Receive, send: Send) -> None:
        """See ASGI. Raises nothing."""
        started = time.perf_counter()
        exchange = Exchange(asgi, receive, send, close=self._closing())
        exchange.scope = telemetry.enter_scope(
            _plain(exchange.header(b"x-request-id"), _REQUEST_ID),
            _plain(exchange.header(b"traceparent"), _TRACEPARENT),
        )
        exchange.always = self._cors.headers(exchange.headers)
        try:
            allowed = self._cors.preflight(exchange.method, exchange.headers)
            if allowed is not None:
                await exchange.respond(204, b"", allowed)
            else:
                await self._find(exchange)(exchange)
        except (MeshError, RequestRefused) as error:
            await self._refuse(exchange, error)
        except asyncio.CancelledError:
            if exchange.gone:
                exchange.reason = "CLIENT_GONE"
            else:
                # The drain's deadline has passed.
                exchange.give_up_reading()
                await self._refuse(
                    exchange, Unavailable("This gateway is shutting down; try again.", reason="DRAINING")
                )
        except Exception as error:
            request_id = exchange.scope.request_id
            _log.error("http.defect", request_id=request_id, route=exchange.route, exc_info=error)
            message = f"Internal error; the log has it under request id {request_id}."
            await self._refuse(exchange, Internal(message))
        self._record(exchange, time.perf_counter() - started)

    def _find(self, exchange: Exchange) -> Handler:
        path = exchange.path
        methods = self._routes.get(path)
        if methods is None or path in self._prefixes:
            path = next((p for p in self._prefixes if exchange.path.startswith(p) and exchange.path != p), "")
            methods = self._routes.get(path)
        if methods is None:
            raise _refused(404, f"Unknown path: {exchange.method} {exchange.path[:128]}", "unknown_path")
        exchange.route = path
        handler = methods.get(exchange.method)
        if handler is None:
            allowed = ", ".join(methods)
            error = _refused(405, f"{exchange.method} is not allowed here; use {allowed}.", "method_not_allowed")
            error.refusal.headers.append((b"allow", allowed.encode()))
            raise error
        return handler

    async def _refuse(self, exchange: Exchange, error: MeshError | RequestRefused) -> None:
        if isinstance(error, RequestRefused):
            refusal = error.refusal
            exchange.reason = (refusal.detail.code or "").upper()
        else:
            refusal = refusal_of(error, error.field)
            exchange.reason = error.reason
        await exchange.fail(refusal)

    def _record(self, exchange: Exchange, seconds: float) -> None:
        status = 499 if exchange.gone else exchange.status
        self._meter.http(exchange.route, status, seconds)
        usage_totals = exchange.usage_totals
        if exchange.model and exchange.caller is not None:
            self._meter.generation(exchange.caller.tenant, usage_totals)
        if exchange.route in _QUIET:
            return
        fields: dict[str, object] = {
            "method": exchange.method,
            "route": exchange.route,
            "status": status,
            "outcome": _outcome(exchange, status).name,
            "ms": round(seconds * 1e3, 3),
            "request_id": exchange.scope.request_id,
            "trace_id": exchange.scope.trace_id,
        }
        if exchange.reason:
            fields["reason"] = exchange.reason
        if exchange.caller is not None:
            fields["tenant"], fields["key"] = exchange.caller.tenant, exchange.caller.key_id
        if exchange.model:
            fields |= _generation_fields(exchange, seconds)
        write = _log.warning if status >= 500 or (exchange.stream and exchange.reason) else _log.info
        write("http.finished", **fields)


def _generation_fields(exchange: Exchange, seconds: float) -> dict[str, object]:
    usage_totals, usage = exchange.usage_totals, exchange.usage_totals.settled
    fields: dict[str, object] = {
        "model": exchange.model,
        "stream": exchange.stream,
        # What the gateway itself took: the rest was spent waiting for the router.
        "own_ms": round((seconds - usage_totals.waited_s) * 1e3, 3),
        "first_ms": None if usage_totals.first_s is None else round(usage_totals.first_s * 1e3, 3),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }
    disclosure = usage_totals.disclosure
    if disclosure is not None:
        fields["deployment"] = disclosure.deployment
        fields["attempts"] = len(disclosure.attempts)
        fields["cost_usd"] = disclosure.cost_micro_usd / 1e6
    return fields


def _outcome(exchange: Exchange, status: int) -> Outcome:
    if status == 429:
        return Outcome.BACKPRESSURE
    if status >= 500:
        return Outcome.FAULT
    if status >= 400:
        return Outcome.CALLER_FAULT
    return Outcome.MIDSTREAM_FAULT if exchange.reason else Outcome.OK


def _refused(status: int, message: str, code: str) -> RequestRefused:
    return RequestRefused(Refusal(status, ErrorDetail(message, "invalid_request_error", None, code)))


def _plain(value: str | None, form: re.Pattern[str]) -> str | None:
    return value if value is not None and form.fullmatch(value) else None
