"""`headrace status`: every process, replica, health and load."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mesh.stack import Stack
from ops import console
from ops.failure import ExitCode
from ops.local.supervisor import Supervisor
from ops.mesh_status import Load, MeshStatus, Row, mesh_status
from ops.session import running_supervisor, state_of, wait_for

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
    """Show every process, replica, health and load. Exit code 1 where something is not as it should be."""
    state = state_of(context)
    supervisor, stack = running_supervisor(state), state.load_stack()
    if watch and not as_json:
        _watch(stack, supervisor)
        return
    seen = wait_for(mesh_status(stack, supervisor))
    if as_json:
        console.print_json({**asdict(seen), "healthy": seen.healthy})
    else:
        console.out.print(_render(seen))
    raise typer.Exit(ExitCode.OK if seen.healthy else ExitCode.NEGATIVE)


def _watch(stack: Stack, supervisor: Supervisor) -> None:
    with Live(console=console.out, auto_refresh=False, screen=console.out.is_terminal) as live:
        while True:
            live.update(_render(wait_for(mesh_status(stack, supervisor))), refresh=True)
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
    return Group(Text(f"stack {seen.stack}, snapshot {version}", "dim"), table)


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
