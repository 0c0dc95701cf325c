"""Finding out, before anything is started, that an address is taken, and by whom."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

import psutil

from mesh.address import split
from mesh.stack import Stack
from ops.failure import Failure


@dataclass(frozen=True, slots=True)
class Listener:
    """An address that the stack will listen on."""

    owner: str
    host: str
    port: int


def listeners(stack: Stack) -> tuple[Listener, ...]:
    """Every address that the stack's processes listen on."""
    named = [("control", stack.control)]
    if stack.edge:
        named += [("edge.listen", stack.edge.listen), ("edge.admin", stack.edge.admin)]
    found = [Listener(owner, *split(address)) for owner, address in named]
    for replica in stack.each_replica():
        found += [Listener(f"{replica.id}.{name}", "127.0.0.1", port) for name, port in replica.ports.items()]
    return tuple(found)


def require_free(wanted: tuple[Listener, ...]) -> None:
    """Raise Failure naming each address that cannot be listened on, and who holds it where that can be seen."""
    taken = [(listener, problem) for listener in wanted if (problem := _problem(listener))]
    if not taken:
        return
    what = "; ".join(f"port {one.port} (for {one.owner}) {problem}" for one, problem in taken)
    raise Failure(what, "stop what uses it, or change the port in a copy of the stack file: headrace up --stack FILE")


def _problem(listener: Listener) -> str:
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of an earlier run that are still closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listener.host, listener.port))
            probe.listen()
        except OSError as error:
            holder = _holder(listener.port)
            return f"is in use{holder}" if holder else f"cannot be listened on: {error.strerror}"
    return ""


def _holder(port: int) -> str:
    """The process that listens there, in words; empty where nobody does or it may not be seen."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or connection.laddr.port != port:
                continue
            if connection.pid is None:
                return " by another user's process"
            return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""
