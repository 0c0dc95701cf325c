"""`headrace plan`: what a model needs, asked of the inference service's own planner."""

from __future__ import annotations

import os
import subprocess
import sys

import typer

from ops.state import CHECKOUT

# Whatever follows goes to the planner as it is, its --help too.
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def plan(context: typer.Context) -> None:
    """Say what a model needs and what a machine can serve (`headrace plan --help`)."""
    raise typer.Exit(run_module("inference", "plan", *context.args))


def run_module(module: str, *arguments: str) -> int:
    """Run a service's module where the user stands, so that relative paths start there; its exit code."""
    # -P: what lies in the user's folder is not imported, whatever it is called.
    command = [sys.executable, "-P", "-m", module, *arguments]
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=False).returncode  # noqa: S603 - ours
