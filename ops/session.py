"""What every command starts from: which state folder it speaks of, chosen once before the command."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import typer

from ops.failure import Failure
from ops.invocation import Invocation
from ops.local.supervisor import Supervisor
from ops.state import StateDir

T = TypeVar("T")


def state_of(context: typer.Context) -> StateDir:
    """The state folder that the command line or HEADRACE_STATE_DIR names."""
    return StateDir(invocation_of(context).state_dir)


def invocation_of(context: typer.Context) -> Invocation:
    """How the command was called."""
    invocation = context.find_root().obj
    assert isinstance(invocation, Invocation)
    return invocation


def running_supervisor(state: StateDir) -> Supervisor:
    """The supervisor of a mesh that is up. Raises Failure where none is."""
    supervisor = Supervisor(state)
    if not supervisor.alive():
        raise Failure(f"no mesh is running from {state.path}", "start it: headrace up")
    return supervisor


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's asynchronous part to its end."""
    return asyncio.run(work)
