"""One answer, streamed; and what can go wrong on the way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web

from ops.drills.provider import completions
from ops.drills.provider.completions import Answer
from ops.drills.provider.faults import Fault, Kind
from ops.drills.provider.journal import Call


@dataclass(frozen=True)
class Pace:
    """How an undisturbed answer flows, in seconds."""

    first_token_s: float
    token_interval_s: float


async def stream(
    request: web.Request, answer: Answer, call: Call, fault: Fault | None, pace: Pace
) -> web.StreamResponse:
    """Send the answer; `call.chunks` counts what was sent."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
    await response.prepare(request)
    if fault is not None and fault.kind is Kind.SILENT:
        await _forever()
    await asyncio.sleep(pace.first_token_s)
    for event in answer.chunks(counted=fault is None or fault.kind is not Kind.NO_DONE):
        if fault is not None and await _go_wrong(request, response, call, fault):
            return response
        if call.chunks and pace.token_interval_s:
            await asyncio.sleep(pace.token_interval_s)
        await response.write(event)
        call.chunks += 1
    if fault is None or fault.kind not in (Kind.NO_DONE, Kind.UNTERMINATED):
        await response.write(completions.DONE)
    await response.write_eof()
    return response


async def _go_wrong(request: web.Request, response: web.StreamResponse, call: Call, fault: Fault) -> bool:
    """Apply the fault if its time has come; True where the answer ends with it."""
    if call.chunks < fault.after:
        return False
    if fault.kind is Kind.DRIP:
        await asyncio.sleep(fault.interval_s)
        return False
    if fault.kind is Kind.STALL:
        await _forever()
    if fault.kind is Kind.CUT:
        if request.transport is not None:
            request.transport.abort()
        return True
    if fault.kind is Kind.MALFORMED:
        await response.write(completions.MALFORMED)
        await response.write_eof()
        return True
    if fault.kind is Kind.ERROR_EVENT:
        await response.write(completions.sse(completions.error("The server had an error.", "server_error")))
        await response.write_eof()
        return True
    return False


async def _forever() -> None:
    """Until the caller gives up, which cancels the handler."""
    await asyncio.Event().wait()
