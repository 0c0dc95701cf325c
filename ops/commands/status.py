"""`headrace status`: every process, replica, health and load."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Annotated, Final

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ops import console
from ops.failure import ExitCode, Failure
from ops.local.given import remembered
from ops.local.supervisor import Supervisor
from ops.mesh_status import Load, MeshStatus, Row, mesh_status
from ops.refused_files import RefusedFile
from ops.session import running_supervisor, state_of, wait_for
from ops.state import StateDir

_WATCH_S: Final = 1.0
_COLOURS: Final = {
    "running": "green", "healthy": "green", "closed": "green",
    "starting": "yellow", "stopping": "yellow", "draining": "yellow", "half_open": "yellow", "unknown": "yellow",
}  # fmt: skip


def status(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it; ctrl-C ends.")] = False,
) -> None:
    """Show every process, replica, health and load, and each file that is refused, with line and reason.

    Exit code 1 where something is not as it should be.
    """
    state = state_of(context)
    supervisor = running_supervisor(state)
    if watch and not as_json:
        _watch(state, supervisor)
        return
    seen = _look(state, supervisor)
    if as_json:
        console.print_json({**asdict(seen), "healthy": seen.healthy})
    else:
        console.out.print(_render(seen))
    raise typer.Exit(ExitCode.OK if seen.healthy else ExitCode.NEGATIVE)


def _look(state: StateDir, supervisor: Supervisor) -> MeshStatus:
    """The mesh now. Where its stack file is wrong, the one that it was started from says where everybody is."""
    try:
        stack, wrong = state.load_stack(), ""
    except Failure as failure:
        given = remembered(state)
        if given is None:
            raise
        stack, wrong = given.stack, failure.what
    seen = wait_for(mesh_status(stack, supervisor, state.logs))
    if not wrong or any(one.file == "stack" for one in seen.refused):
        return seen
    return replace(seen, refused=(RefusedFile("headrace", "stack", tuple(wrong.splitlines())), *seen.refused))


def _watch(state: StateDir, supervisor: Supervisor) -> None:
    with Live(console=console.out, auto_refresh=False, screen=console.out.is_terminal) as live:
        while True:
            live.update(_render(_look(state, supervisor)), refresh=True)
            time.sleep(_WATCH_S)


def _render(seen: MeshStatus) -> Group:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("process", "state", "health", "pid", "up", "memory", "running", "queued", "tok/s", "kv", "breaker"):
        table.add_column(name, no_wrap=True)
    table.add_column("", overflow="fold")
    for row in seen.rows:
        words = (_coloured(row.state), _coloured(row.health))
        table.add_row(row.name, *words, *_process(row), *_load(row.load), row.reason)
    version = seen.snapshot or "none: the control plane does not answer"
    refused = [line for one in seen.refused for line in _refused(one)]
    return Group(Text(f"stack {seen.stack}, snapshot {version}", "dim"), table, *refused)


def _refused(one: RefusedFile) -> list[Text]:
    head = Text(f"{one.process} refuses its {one.file} file, and goes on with the one before:", "red")
    return [head, *(Text(f"  {problem}") for problem in one.problems)]


def _process(row: Row) -> tuple[str, str, str]:
    if not row.pid:
        return "", "", ""
    return str(row.pid), _duration(row.uptime_s), f"{row.rss_mb:.0f} MB"


def _load(load: Load | None) -> tuple[str | Text, ...]:
    if load is None:
        return ("",) * 5
    return (
        f"{load.running}/{load.capacity}",
        str(load.queued),
        f"{load.tokens_per_second:.0f}",
        f"{load.kv_used:.0%}",
        _coloured(load.breaker),
    )


def _coloured(word: str) -> Text:
    return Text(word, _COLOURS.get(word, "red"))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
