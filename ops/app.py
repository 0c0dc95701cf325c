"""The command line as a whole: which commands there are, and how each ends."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
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
from ops.invocation import DEFAULT_STATE, Invocation

app = typer.Typer(
    help="Run, watch, scale and question a Headrace mesh.", no_args_is_help=True, pretty_exceptions_enable=False
)


@app.callback()
def choose_state(
    context: typer.Context,
    state_dir: Annotated[
        Path, typer.Option(envvar="HEADRACE_STATE_DIR", help="Where the mesh keeps its state; one folder per stack.")
    ] = DEFAULT_STATE,
) -> None:
    """Run, watch, scale and question a Headrace mesh."""
    context.ensure_object(Invocation).state_dir = state_dir.absolute()


for command in (up, down, status, scale, logs, chat, explain):
    app.command()(command)
app.command(context_settings=planning.SETTINGS)(planning.plan)
app.add_typer(cascade, name="cascade")
app.add_typer(config, name="config")
app.add_typer(keys, name="keys")
app.add_typer(drill, name="drill")


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code. What goes wrong is said on stderr, with what to do next."""
    signal.signal(signal.SIGTERM, _terminate)
    invocation = Invocation()
    try:
        code = _run(arguments, invocation)
        # Here, where it can still be said, and not while the interpreter ends.
        sys.stdout.flush()
    except Failure as failure:
        return _fail(failure, invocation)
    except BrokenPipeError:
        # Whoever read the output has seen enough of it.
        _forget_stdout()
        return ExitCode.OK
    except OSError as error:
        _forget_stdout()
        return _fail(_failure_of(error), invocation)
    return code


def _run(arguments: Sequence[str], invocation: Invocation) -> int:
    try:
        app(args=list(arguments), prog_name="headrace", obj=invocation)
    except SystemExit as end:
        # How typer ends every command: 2 for a wrong command line, 130 for ctrl-C, or what the command chose.
        return end.code if isinstance(end.code, int) else ExitCode.OK
    return ExitCode.OK


def _fail(failure: Failure, invocation: Invocation) -> int:
    console.print_failure(failure, invocation.typed)
    return failure.code


def _failure_of(error: OSError) -> Failure:
    """What the system refused, in words: a full disk, a folder that may not be written, too many open files."""
    steps = {
        errno.ENOSPC: "free some space there, or choose another disk with --state-dir",
        errno.EDQUOT: "free some space there, or choose another disk with --state-dir",
        errno.EACCES: "see who owns it, or choose another folder with --state-dir",
        errno.EPERM: "see who owns it, or choose another folder with --state-dir",
        errno.EROFS: "choose a folder that can be written with --state-dir",
        errno.EMFILE: "allow more open files: ulimit -n 4096",
    }
    where = f"{error.filename}: " if error.filename else ""
    step = steps.get(error.errno or 0, "see that the disk and the state folder are in order, then type it again")
    return Failure(f"{where}{error.strerror or error}", step, ExitCode.IO)


def _forget_stdout() -> None:
    """Let the interpreter flush what is left of stdout to nowhere: it would fail once more, without words."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    """SIGTERM ends a command as ctrl-C does: what it started is stopped first."""
    raise SystemExit(ExitCode.TERMINATED)
