"""The provider's HTTP servers: one for callers, and one for whoever sets its faults."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import msgspec
from aiohttp import web

from ops.drills.provider import completions
from ops.drills.provider.answers import split_model
from ops.drills.provider.completions import Answer, BadRequest
from ops.drills.provider.faults import Fault, FaultError, Kind, Switchboard, from_fields, from_text
from ops.drills.provider.journal import Call, Journal
from ops.drills.provider.streaming import Pace, stream

FAULT_HEADER: Final = "x-fault"
_BEFORE_HEADERS: Final = frozenset({Kind.NO_HEADERS, Kind.RATE_LIMIT, Kind.STATUS, Kind.ERROR_BODY, Kind.REPLY})


@dataclass(frozen=True)
class ProviderOptions:
    """Ports (0: any free one), and what an undisturbed answer is like. Times are seconds."""

    port: int = 0
    admin_port: int = 0
    answer_tokens: int = 32
    first_token_s: float = 0.0
    token_interval_s: float = 0.0


class Provider:
    """The running servers. `start` gives the ports; `close` may be called twice."""

    def __init__(self, options: ProviderOptions) -> None:
        self._options = options
        self._switchboard = Switchboard()
        self._journal = Journal()
        self._started = time.monotonic()
        self._calls_runner = web.AppRunner(self._calls_app(), handler_cancellation=True, access_log=None)
        self._admin_runner = web.AppRunner(self._admin_app(), access_log=None)
        self._site: web.TCPSite | None = None
        self._relisten: asyncio.Task[None] | None = None
        self.port = options.port
        self.admin_port = options.admin_port

    async def start(self) -> None:
        """Listen on loopback; `port` and `admin_port` are known afterwards. Raises OSError."""
        await self._calls_runner.setup()
        await self._admin_runner.setup()
        await self._listen()
        self.port = self._calls_runner.addresses[0][1]
        await web.TCPSite(self._admin_runner, "127.0.0.1", self.admin_port).start()
        self.admin_port = self._admin_runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening and break what is still open."""
        if self._relisten is not None:
            self._relisten.cancel()
        await self._calls_runner.cleanup()
        await self._admin_runner.cleanup()

    def report(self) -> dict[str, Any]:
        """The calls received so far, and the connections that are open."""
        server = self._calls_runner.server
        return self._journal.report() | {"connections": len(server.connections) if server is not None else 0}

    async def set_faults(self, faults: list[Fault]) -> None:
        """Replace the faults in force."""
        if self._relisten is not None:
            self._relisten.cancel()
            self._relisten = None
        self._switchboard.set(faults)
        refuse = next((fault for fault in faults if fault.kind is Kind.REFUSE), None)
        if refuse is None:
            await self._listen()
        else:
            await self._refuse()
            self._relisten = asyncio.create_task(self._listen_after(refuse.lasts_s))

    async def _listen(self) -> None:
        if self._site is None:
            self._site = web.TCPSite(self._calls_runner, "127.0.0.1", self.port, reuse_address=True)
            await self._site.start()

    async def _refuse(self) -> None:
        if self._site is not None:
            site, self._site = self._site, None
            await site.stop()
        # Kept connections would still be served.
        server = self._calls_runner.server
        for connection in list(server.connections) if server is not None else ():
            connection.force_close()
            if connection.transport is not None:
                connection.transport.abort()

    async def _listen_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._listen()

    def _calls_app(self) -> web.Application:
        app = web.Application(client_max_size=16 << 20)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        return app

    def _admin_app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/faults", self._get_faults)
        app.router.add_put("/faults", self._put_faults)
        app.router.add_delete("/faults", self._delete_faults)
        app.router.add_get("/calls", self._get_calls)
        app.router.add_delete("/calls", self._delete_calls)
        return app

    async def _models(self, request: web.Request) -> web.Response:
        model = {"id": "drill", "object": "model", "created": 0, "owned_by": "headrace"}
        return _json({"object": "list", "data": [model]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        try:
            body = msgspec.json.decode(await request.read(), type=dict[str, Any])
            model, inline = split_model(str(body.get("model") or ""))
            fault = self._fault(request, model, inline)
            answer = Answer(body, self._journal.total + 1, self._options.answer_tokens)
        except (msgspec.DecodeError, FaultError) as problem:
            return _json(completions.error(str(problem), "invalid_request_error"), 400)
        except BadRequest as problem:
            return _json(completions.error(str(problem), "invalid_request_error", problem.param), 400)
        call = self._journal.open(
            model=model,
            stream=bool(body.get("stream")),
            request_id=request.headers.get("x-request-id", ""),
            fault=fault.kind.value if fault else "",
            at=round(time.monotonic() - self._started, 3),
        )
        try:
            response = await self._answer(request, answer, call, fault)
            self._journal.close(call, "faulted" if fault and fault.kind is not Kind.DRIP else "finished")
            return response
        finally:
            # Reached first only where the caller went away.
            self._journal.close(call, "cancelled")

    async def _answer(
        self, request: web.Request, answer: Answer, call: Call, fault: Fault | None
    ) -> web.StreamResponse:
        if fault is not None and fault.kind in _BEFORE_HEADERS:
            return await _instead(fault)
        pace = Pace(self._options.first_token_s, self._options.token_interval_s)
        if call.stream:
            return await stream(request, answer, call, fault, pace)
        await asyncio.sleep(pace.first_token_s)
        return _json(answer.whole())

    def _fault(self, request: web.Request, model: str, inline: str) -> Fault | None:
        written = inline or request.headers.get(FAULT_HEADER, "")
        return from_text(written) if written else self._switchboard.choose(model)

    async def _get_faults(self, request: web.Request) -> web.Response:
        return _json([asdict(fault) for fault in self._switchboard.faults])

    async def _put_faults(self, request: web.Request) -> web.Response:
        try:
            fields = msgspec.json.decode(await request.read(), type=list[Any])
            await self.set_faults([from_fields(entry) for entry in fields])
        except (msgspec.DecodeError, FaultError) as problem:
            return _json({"error": str(problem)}, 400)
        return await self._get_faults(request)

    async def _delete_faults(self, request: web.Request) -> web.Response:
        await self.set_faults([])
        return _json([])

    async def _get_calls(self, request: web.Request) -> web.Response:
        return _json(self.report())

    async def _delete_calls(self, request: web.Request) -> web.Response:
        self._journal = Journal()
        return _json(self.report())


async def _instead(fault: Fault) -> web.Response:
    """What is sent instead of an answer."""
    if fault.kind is Kind.NO_HEADERS:
        # Until the caller gives up, which cancels this handler.
        await asyncio.Event().wait()
    if fault.kind is Kind.RATE_LIMIT:
        body = completions.error("Rate limit reached.", "rate_limit_error")
        return _json(body, 429, {"retry-after": fault.retry_after})
    if fault.kind is Kind.REPLY:
        return web.Response(text=fault.body, status=fault.status, content_type=fault.content_type)
    if fault.kind is Kind.ERROR_BODY:
        return _json(completions.error("The server had an error.", "server_error"))
    return _json(completions.error("The server had an error.", "server_error"), fault.status)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
