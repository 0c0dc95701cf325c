"""Files that processes refuse: what was read before is in force, and an operator would not notice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import msgspec

from headrace.control.v1 import control_pb2
from headrace.router.v1 import router_pb2
from mesh.stack import Replica, Stack
from ops.local.probing import log_end
from ops.local.processes import CONTROL

_TIMEOUT_S: Final = 2.0
_STACK: Final = "stack"


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """One process's refusal of one file. `problems` are its words: file, line and reason."""

    process: str
    # "routing", "keys" or "stack".
    file: str
    problems: tuple[str, ...]


async def refused_files(
    stack: Stack, logs: Path, current: control_pb2.Snapshot, routers: Mapping[str, router_pb2.GetStateResponse]
) -> tuple[RefusedFile, ...]:
    """What the control plane, the routers (by address) and the gateways refuse; who does not answer is left out."""
    gateways = [
        replica
        for service in stack.services
        if service.kind == "gateway"
        for replica in service.each_replica()
        if "http" in replica.ports
    ]
    asked = await asyncio.gather(*(_of_gateway(one, logs) for one in gateways))
    return (*_of_control(current), *_of_routers(stack, routers), *(refused for each in asked for refused in each))


def _of_control(current: control_pb2.Snapshot) -> Iterable[RefusedFile]:
    for source in current.sources:
        if source.name == _STACK and source.error:
            yield RefusedFile(CONTROL, _STACK, (source.error,))


def _of_routers(stack: Stack, states: Mapping[str, router_pb2.GetStateResponse]) -> Iterable[RefusedFile]:
    names = {replica.address: replica.id for replica in stack.each_replica()}
    for address, state in states.items():
        if state.config_error:
            yield RefusedFile(names.get(address, address), "routing", tuple(state.config_error.splitlines()))


class _Ready(msgspec.Struct):
    warnings: dict[str, str] = {}


async def _of_gateway(replica: Replica, logs: Path) -> tuple[RefusedFile, ...]:
    """Its readiness says that it refuses a file to anybody who asks; why, with lines, only its log does."""
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as http:
            answer = await http.get(f"http://127.0.0.1:{replica.ports['http']}/readyz")
        warnings = msgspec.json.decode(answer.content, type=_Ready).warnings
    except (httpx.HTTPError, msgspec.MsgspecError):
        return ()
    end = log_end(logs / f"{replica.id}.log") if warnings else ""
    return tuple(RefusedFile(replica.id, file, reasons(end, file) or (text,)) for file, text in warnings.items())


class _Event(msgspec.Struct):
    event: str = ""
    file: str = ""
    problems: tuple[str, ...] = ()


def reasons(log: str, file: str) -> tuple[str, ...]:
    """Why a file was refused last, as the log has it; nothing where it does not go back that far."""
    for line in reversed(log.splitlines()):
        if '"file.refused"' not in line:
            continue
        try:
            event = msgspec.json.decode(line, type=_Event)
        except msgspec.DecodeError:
            continue
        if event.event == "file.refused" and event.file == file:
            return event.problems
    return ()
