"""`headrace plan`: what a model needs, asked of the inference service's own planner."""

from __future__ import annotations

import subprocess
import sys

import typer

from ops.state import CHECKOUT

# Whatever follows goes to the planner as it is, its --help too.
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def plan(context: typer.Context) -> None:
    """Say what a model needs and what a machine can serve (`headrace plan --help`)."""
    command = [sys.executable, "-m", "inference", "plan", *context.args]
    raise typer.Exit(subprocess.run(command, cwd=CHECKOUT, check=False).returncode)  # noqa: S603 - our own module
