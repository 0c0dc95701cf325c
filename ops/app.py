"""The command line as a whole: which commands there are, and how each ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ops import console
from ops.commands import plan as planning
from ops.commands.cascade import cascade
from ops.commands.chat import chat
from ops.commands.config import config
from ops.commands.drill import drill
from ops.commands.explain import explain
from ops.commands.keys import keys
from ops.commands.logs import logs
from ops.commands.scale import scale
from ops.commands.status import status
from ops.commands.up import down, up
from ops.failure import ExitCode, Failure
from ops.state import CHECKOUT

app = typer.Typer(
    help="Run, watch, scale and question a Headrace mesh.", no_args_is_help=True, pretty_exceptions_enable=False
)


@app.callback()
def choose_state(
    context: typer.Context,
    state_dir: Annotated[
        Path, typer.Option(envvar="HEADRACE_STATE_DIR", help="Where the mesh keeps its state; one folder per stack.")
    ] = CHECKOUT / ".headrace",
) -> None:
    """Run, watch, scale and question a Headrace mesh."""
    context.obj = state_dir.absolute()


for command in (up, down, status, scale, logs, chat, explain):
    app.command()(command)
app.command(context_settings=planning.SETTINGS)(planning.plan)
app.add_typer(cascade, name="cascade")
app.add_typer(config, name="config")
app.add_typer(keys, name="keys")
app.add_typer(drill, name="drill")


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code. What goes wrong is said on stderr, with what to do next."""
    try:
        app(args=list(arguments), prog_name="headrace")
    except Failure as failure:
        console.print_failure(failure)
        return failure.code
    except SystemExit as end:
        # How typer ends every command: 2 for a wrong command line, 130 for ctrl-C, or what the command chose.
        return end.code if isinstance(end.code, int) else ExitCode.OK
    return ExitCode.OK
