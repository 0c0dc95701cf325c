"""`headrace logs`: what a service's processes wrote."""

from __future__ import annotations

import subprocess
from typing import Annotated

import typer

from ops.failure import ExitCode, Failure
from ops.local.processes import processes
from ops.session import state_of


def logs(
    context: typer.Context,
    service: Annotated[str, typer.Argument(help="A service, a replica, control or envoy.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are written; ctrl-C ends.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines of the past.", min=0)] = 50,
) -> None:
    """Show the end of a service's logs, those of all its replicas."""
    state = state_of(context)
    names = [spec.name for spec in processes(state.load_stack(), state)]
    chosen = [name for name in names if service in (name, name.rpartition("-")[0])]
    if not chosen:
        raise Failure(f"no service {service!r}; there are: {', '.join(names)}", "name one of them", ExitCode.USAGE)
    paths = [str(path) for name in chosen if (path := state.log(name)).exists()]
    if not paths:
        raise Failure(f"{service} has written nothing yet", "see whether it runs: headrace status")
    command = ["tail", "-n", str(lines), *(["-F"] if follow else []), *paths]
    raise typer.Exit(subprocess.run(command, check=False).returncode)  # noqa: S603 - paths of our own making
