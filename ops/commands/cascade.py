"""`headrace cascade`: a cascade's thresholds, asked of the router's own calibration."""

from __future__ import annotations

import subprocess
import sys

import typer

from ops.commands.plan import SETTINGS
from ops.state import CHECKOUT

cascade = typer.Typer(help="Calibrate the cascades of the routing file.", no_args_is_help=True)


@cascade.command(context_settings=SETTINGS)
def calibrate(context: typer.Context) -> None:
    """Choose thresholds from labelled questions (`headrace cascade calibrate --help`)."""
    command = [sys.executable, "-m", "router", "calibrate", *context.args]
    raise typer.Exit(subprocess.run(command, cwd=CHECKOUT, check=False).returncode)  # noqa: S603 - our own module
