"""`headrace cascade`: a cascade's thresholds, asked of the router's own calibration."""

from __future__ import annotations

import typer

from ops.commands.plan import SETTINGS, run_module

cascade = typer.Typer(help="Calibrate the cascades of the routing file.", no_args_is_help=True)


@cascade.command(context_settings=SETTINGS)
def calibrate(context: typer.Context) -> None:
    """Choose thresholds from labelled questions (`headrace cascade calibrate --help`)."""
    raise typer.Exit(run_module("router", "calibrate", *context.args))
