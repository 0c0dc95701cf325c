"""`headrace drill`: break the mesh on purpose, and say whether it held."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from mesh.yaml_source import FileErrors
from ops import console
from ops.drills.environment import running_environment
from ops.drills.report import write_report
from ops.drills.runner import Outcome, run
from ops.drills.spec import Drill, read
from ops.drills.verdict import as_json
from ops.failure import ExitCode, Failure
from ops.session import running_supervisor, state_of, wait_for
from ops.state import CHECKOUT

_FOLDER: Final = CHECKOUT / "deploy/drills"

drill = typer.Typer(help="Break the mesh on purpose, under load, and judge what happens.", no_args_is_help=True)


@drill.command("list")
def list_drills(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show the drills there are."""
    drills = [_read(path, sabotaged=False) for path in sorted(_FOLDER.glob("*.yaml"))]
    if as_json:
        console.print_json([{"name": one.name, "about": one.about, "sabotage": one.sabotage.about} for one in drills])
        return
    table = Table("drill", "what happens", "its sabotage", box=None, header_style="bold")
    for one in drills:
        table.add_row(Text(one.name, "cyan"), one.about, Text(one.sabotage.about, "dim"))
    console.out.print(table, soft_wrap=False)


@drill.command("run")
def run_drill(  # noqa: PLR0917 - typer reads a command line from its parameters
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A drill's name, or the path of its file.")],
    sabotage: Annotated[bool, typer.Option("--sabotage", help="Switch the safety net off: it must then fail.")] = False,
    running: Annotated[
        bool, typer.Option("--running", help="Play on the mesh that is up, not on one of its own.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Where the HTML report goes.", metavar="FILE")] = None,
    as_json_only: Annotated[bool, typer.Option("--json", help="The JSON line alone.")] = False,
) -> None:
    """Play one drill. The last line on stdout is its verdict as JSON; the exit code is 1 where it failed."""
    chosen = _read(_file(name), sabotaged=sabotage)
    state = state_of(context)
    if running:
        running_supervisor(state)
        if chosen.stack.providers or sabotage:
            raise Failure(
                "with providers or sabotage a drill needs its own stack", "leave --running out", ExitCode.USAGE
            )
    outcome = wait_for(
        _until_signalled(
            run(
                chosen,
                sabotaged=sabotage,
                say=lambda text: console.say(f"[dim]{text}[/]"),
                on=running_environment(state) if running else None,
            )
        )
    )
    file = report or state.path / "drills" / f"{chosen.name}{'-sabotaged' if sabotage else ''}.html"
    write_report(outcome, file)
    if not as_json_only:
        _show(outcome, file)
    verdict = as_json(chosen.name, outcome.checks, outcome.figures, sabotaged=sabotage) | {"report": str(file)}
    console.out.file.write(msgspec.json.encode(verdict).decode() + "\n")
    if not outcome.passed:
        raise typer.Exit(ExitCode.NEGATIVE)


async def _until_signalled(work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run it; SIGTERM cancels it like ctrl-C, so that everything is healed and taken down."""
    task = asyncio.ensure_future(work)
    terminated = asyncio.Event()

    def terminate() -> None:
        terminated.set()
        task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await task
    except asyncio.CancelledError as error:
        if not terminated.is_set():
            # ctrl-C, which ends every command with the same code.
            raise
        raise Failure("stopped; everything is healed", "run it again", ExitCode.NEGATIVE) from error


def _file(name: str) -> Path:
    given = Path(name)
    if given.suffix:
        return given
    file = _FOLDER / f"{name}.yaml"
    if not file.exists():
        known = ", ".join(sorted(path.stem for path in _FOLDER.glob("*.yaml")))
        raise Failure(f"no drill {name!r}", f"there are: {known}", ExitCode.USAGE)
    return file


def _read(path: Path, *, sabotaged: bool) -> Drill:
    try:
        return read(path, sabotaged=sabotaged)
    except FileErrors as error:
        raise Failure(f"drill refused: {error}", "fix the line named above", ExitCode.USAGE) from error


def _show(outcome: Outcome, file: Path) -> None:
    name = outcome.drill.name + (" (sabotaged: " + outcome.drill.sabotage.about + ")" if outcome.sabotaged else "")
    table = Table("", "what", "limit", "seen", title=name, title_justify="left", box=None, header_style="bold")
    for check in outcome.checks:
        mark = Text("✔", "green") if check.passed else Text("✘", "bold red")
        table.add_row(mark, check.what, Text(check.limit, "dim"), Text(check.seen, "" if check.passed else "red"))
    console.out.print(table, soft_wrap=False)
    seen = outcome.figures
    for phase in ("before", "during", "after"):
        p50, p99 = seen.p50_s.get(phase), seen.p99_s.get(phase)
        if p50 is not None:
            console.out.print(f"[dim]{phase:>7}  p50 {p50:.2f} s  p99 {p99:.2f} s[/]")
    console.out.print(
        f"[dim]{seen.requests} requests, {seen.spliced} resumed, {seen.amplification:g} attempts a request; {file}[/]"
    )
    console.out.print("[bold green]passed[/]" if outcome.passed else "[bold red]failed[/]")
