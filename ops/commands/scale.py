"""`headrace scale`: more or fewer replicas of a service, without a dropped request."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Final

import typer

from headrace.control.v1 import control_pb2
from mesh import stack as stacks
from mesh.stack import Replica, Stack
from mesh.yaml_source import FileErrors
from ops import console
from ops.clients import router_states, snapshot
from ops.failure import ExitCode, Failure
from ops.local.lock import locked
from ops.local.ports import Listener, require_free
from ops.local.processes import processes
from ops.local.render import write_configuration
from ops.local.supervisor import Supervisor
from ops.session import running_supervisor, state_of, wait_for
from ops.state import StateDir

_POLL_S: Final = 0.1


def scale(
    context: typer.Context,
    wanted: Annotated[list[str], typer.Argument(help="For example inference-small=2.", metavar="SERVICE=N...")],
    timeout: Annotated[float, typer.Option(help="Seconds to wait until new replicas take traffic.", min=1)] = 120.0,
) -> None:
    """Change how many replicas services have. New ones take traffic, old ones drain, before this returns."""
    state = state_of(context)
    supervisor = running_supervisor(state)
    with locked(state.lock, timeout, console.say):
        _scale(state, supervisor, wanted, timeout)


def _scale(state: StateDir, supervisor: Supervisor, wanted: list[str], timeout: float) -> None:
    before = state.load_stack()
    counts = _counts(wanted)
    after = _rescaled(before, state, counts)
    had, gets = {one.id: one for one in before.each_replica()}, {one.id: one for one in after.each_replica()}
    removed = [one for name, one in had.items() if name not in gets]
    added = [one for name, one in gets.items() if name not in had]
    if not removed and not added:
        console.say("nothing to do: the replicas are that many already")
        return
    started = time.monotonic()
    require_free(
        tuple(Listener(f"{one.id}.{name}", "127.0.0.1", port) for one in added for name, port in one.ports.items())
    )
    _take_away(supervisor, before, state, removed)
    stacks.scale(state.stack, counts)
    write_configuration(after, state)
    supervisor.apply_config()
    wait_for(_traffic(after, added, timeout))
    changes = [f"[green]+ {one.id}[/]" for one in added] + [f"[red]- {one.id}[/]" for one in removed]
    console.say(f"{'  '.join(changes)}  after {time.monotonic() - started:.1f} s")


def _counts(wanted: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for text in wanted:
        service, separator, number = text.partition("=")
        if not separator or not number.isdecimal() or not number.isascii():
            raise Failure(f"{text!r} is not SERVICE=N", "for example: headrace scale inference-small=2", ExitCode.USAGE)
        counts[service] = int(number)
    return counts


def _rescaled(before: Stack, state: StateDir, counts: dict[str, int]) -> Stack:
    try:
        text = stacks.with_replicas(state.stack.read_text(encoding="utf-8"), counts, str(state.stack))
        return stacks.parse(text, str(state.stack))
    except FileErrors as errors:
        known = ", ".join(service.name for service in before.services)
        raise Failure(str(errors), f"the services are: {known}", ExitCode.USAGE) from errors


def _take_away(supervisor: Supervisor, before: Stack, state: StateDir, removed: list[Replica]) -> None:
    """Drain replicas while they are still in the stack: their callers see them leave, and streams end in peace."""
    if not removed:
        return
    names = [one.id for one in removed]
    waits = {spec.name: spec.stop_wait_s for spec in processes(before, state)}
    console.say(f"draining {', '.join(names)}")
    supervisor.stop_processes(names, max(waits[name] for name in names) + 5.0)


async def _traffic(stack: Stack, added: list[Replica], timeout_s: float) -> None:
    """Return once the control plane sends callers to every new replica, and every router knows those it may choose."""
    routed = {service.name for service in stack.services if service.kind == "inference"}
    deadline = time.monotonic() + timeout_s
    while missing := await _missing(stack, added, routed):
        if time.monotonic() > deadline:
            raise Failure(
                f"no traffic yet for {', '.join(missing)} after {timeout_s:.0f} s",
                f"see why: headrace status, headrace logs {missing[0]}",
            )
        await asyncio.sleep(_POLL_S)


async def _missing(stack: Stack, added: list[Replica], routed: set[str]) -> list[str]:
    if not added:
        return []
    try:
        current = await snapshot(stack)
    except Failure:
        # The control plane may be restarting; the deadline above ends the wait.
        return [one.id for one in added]
    healthy = {
        one.id for service in current.services for one in service.replicas if one.health == control_pb2.HEALTH_HEALTHY
    }
    known = [
        {replica.id for deployment in answer.deployments for replica in deployment.replicas}
        for answer in (await router_states(stack)).values()
    ]
    return [
        one.id
        for one in added
        if one.id not in healthy or (one.service in routed and not all(one.id in names for names in known))
    ]
